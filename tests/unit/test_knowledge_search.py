"""The parts of the search of knowledge that need no database: words and the fusion."""

from uuid import UUID

import pytest
from pydantic import ValidationError

from schema.knowledge_search import SearchKnowledgeRequest
from services.knowledge.fusion import fused
from services.knowledge.search_statements import nearest
from services.knowledge.search_words import any_of, wanted_words, without_phrases, worth_together

A, B, C = (UUID(int=number) for number in (1, 2, 3))


def test_what_is_first_in_all_rankings_has_the_score_1() -> None:
    assert fused([[A, B], [A, C]])[0] == (A, 1.0)


def test_a_place_in_two_rankings_beats_a_better_place_in_one() -> None:
    order = [thing for thing, _ in fused([[A, B], [C, B]])]

    assert order[0] == B


def test_equals_are_ordered_by_their_ids() -> None:
    assert fused([[B], [A]]) == fused([[A], [B]])
    assert [thing for thing, _ in fused([[B], [A]])] == [A, B]


def test_scores_fall_and_stay_above_0() -> None:
    scores = [score for _, score in fused([[UUID(int=number) for number in range(50)], []])]

    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] == 0.5


def test_a_ranking_alone_reaches_1() -> None:
    assert fused([[A]]) == [(A, 1.0)]


def test_nothing_ranked_is_nothing_found() -> None:
    assert fused([[], []]) == []


def test_words_that_a_minus_leaves_out_are_not_looked_for() -> None:
    assert wanted_words('goods -sale - "x-ray" -"last minute"').split() == ["goods", "-", '"x-ray"']


def test_a_quote_that_never_ends_is_left_out_to_the_end() -> None:
    assert wanted_words('goods -"last minute').split() == ["goods"]


def test_any_of_the_rarest_words_is_looked_for_and_then_of_fewer() -> None:
    assert any_of(["a", "b", "c"]) == ["'a' | 'b' | 'c'", "'a' | 'b'", "'a'"]
    assert any_of([]) == []


def test_no_more_than_a_few_words_are_looked_for() -> None:
    queries = any_of([f"word{number}" for number in range(300)])

    assert len(queries) == 6
    assert queries[0].count("|") == 5


def test_quotes_and_backslashes_in_words_stay_in_them() -> None:
    assert any_of(["o'neill", "c:\\x"])[0] == "'o''neill' | 'c:\\\\x'"


def test_a_text_is_not_looked_for_as_a_whole() -> None:
    assert worth_together(["one"])
    assert not worth_together([])
    assert not worth_together([f"word{number}" for number in range(13)])


def test_phrases_become_words_for_the_index() -> None:
    assert without_phrases("'last' <-> 'minut' <2> 'sale' & !'x'") == (
        "'last' & 'minut' & 'sale' & !'x'"
    )


def test_long_vectors_are_looked_up_in_half_the_precision() -> None:
    assert "embedding::vector(1536)" in nearest(1536)
    assert "embedding::halfvec(3072)" in nearest(3072)


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": ""},
        {"query": " \n\t"},
        {"query": "a\x00b"},
        {"query": "\ud800"},
        {"query": "x" * 2001},
        {"query": "x", "limit": 0},
        {"query": "x", "limit": 51},
        {"query": "x", "limit": "10"},
        {"query": "x", "other": 1},
        {},
    ],
)
def test_what_is_no_question_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SearchKnowledgeRequest.model_validate(wrong)
