"""The parts of the search of knowledge that need no database: words and the fusion."""

from uuid import UUID

import pytest
from pydantic import ValidationError

from schema.knowledge_search import SearchKnowledgeRequest
from services.knowledge.fusion import fused
from services.knowledge.search_statements import nearest
from services.knowledge.search_words import rarest, wanted_words, without_phrases, worth_together

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


def test_rare_words_are_chosen_before_common_ones_and_long_before_short() -> None:
    assert rarest({"common": 900.0, "aa": 0.0, "longer": 0.0}) == "'longer' | 'aa' | 'common'"


def test_common_words_are_left_out_where_rarer_ones_are_there() -> None:
    assert rarest({"the": 5e6, "returns": 3.0}) == "'returns'"


def test_a_common_word_alone_is_looked_for() -> None:
    assert rarest({"the": 5e6}) == "'the'"


def test_no_more_than_a_few_words_are_looked_for() -> None:
    assert rarest({f"word{number}": 0.0 for number in range(300)}).count("|") == 5


def test_quotes_and_backslashes_in_words_stay_in_them() -> None:
    assert rarest({"o'neill": 0.0, "c:\\x": 0.0}) == "'o''neill' | 'c:\\\\x'"


def test_a_text_is_not_looked_for_as_a_whole() -> None:
    assert worth_together({"one": 0.0})
    assert not worth_together({})
    assert not worth_together({f"word{number}": 0.0 for number in range(13)})


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
