"""The parts of the search of knowledge that need no database: its words and its statement."""

import pytest
from pydantic import ValidationError

from schema.knowledge_search import SearchKnowledgeRequest
from services.knowledge.search import search_statement, wanted_words


def test_words_that_a_minus_leaves_out_are_not_looked_for() -> None:
    assert wanted_words('goods -sale - "x-ray" -"last minute"').split() == ["goods", "-", '"x-ray"']


def test_a_quote_that_never_ends_is_left_out_to_the_end() -> None:
    assert wanted_words('goods -"last minute').split() == ["goods"]


def test_long_vectors_are_looked_up_in_half_the_precision() -> None:
    assert "embedding::vector(1536)" in search_statement(1536)
    assert "embedding::halfvec(3072)" in search_statement(3072)


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
def test_invalid_queries_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SearchKnowledgeRequest.model_validate(wrong)
