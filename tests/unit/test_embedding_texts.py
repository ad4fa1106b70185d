"""How texts are prepared for embedding and spread over requests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.embeddings.embedder import EmbeddingRefusedError, prepared, requests


@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "\u00a0\u3000"])
def test_a_blank_text_is_rejected_by_its_index(blank: str) -> None:
    with pytest.raises(EmbeddingRefusedError, match="Text 2 of 3 is blank"):
        prepared(["a person's words", blank, "more of them"], longest_bytes=100)


def test_a_refusal_quotes_no_text() -> None:
    with pytest.raises(EmbeddingRefusedError) as refusal:
        prepared(["a person's words", ""], longest_bytes=100)

    assert "person" not in str(refusal.value)


def test_white_space_around_a_text_counts_for_nothing() -> None:
    assert prepared(["  two words \n"], longest_bytes=100) == ["two words"]


def test_compatibility_characters_are_what_they_stand_for() -> None:
    assert prepared(["of\ufb01ce \uff21\uff22"], longest_bytes=100) == ["office AB"]


def test_unencodable_text_is_replaced() -> None:
    assert prepared(["a\x00b\ud800c"], longest_bytes=100) == ["a\ufffdb\ufffdc"]


def test_a_long_text_is_cut_between_two_characters() -> None:
    assert prepared(["ab漢字"], longest_bytes=6) == ["ab漢"]


@settings(max_examples=25)
@given(st.lists(st.text("aé漢🙂", min_size=1), max_size=20))
def test_a_prepared_text_is_unchanged(texts: list[str]) -> None:
    once = prepared(texts, longest_bytes=40)

    assert prepared(once, longest_bytes=40) == once
    assert all(0 < len(text.encode()) <= 40 for text in once)


@settings(max_examples=25)
@given(
    st.lists(st.text("aé漢🙂", min_size=1, max_size=30)),
    st.integers(1, 5),
    st.integers(1, 60),
)
def test_requests_hold_every_text_in_order_within_their_limits(
    texts: list[str], most_texts: int, most_bytes: int
) -> None:
    batches = list(requests(texts, most_texts=most_texts, most_bytes=most_bytes))

    assert [text for batch in batches for text in batch] == texts
    for batch in batches:
        assert 1 <= len(batch) <= most_texts
        assert len(batch) == 1 or sum(len(text.encode()) for text in batch) <= most_bytes
