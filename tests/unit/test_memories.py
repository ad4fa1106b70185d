"""Valid memories: their text, their importance, and the fields that are sent."""

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schema.memories import (
    ChangeMemoryRequest,
    CreateMemoryRequest,
    MemoryKind,
    MemorySuggestion,
    SearchMemoriesRequest,
    kept_importance,
)

IMPORTANCES = st.floats(min_value=0, max_value=1)


def single_precision(number: float) -> float:
    """Return the number as a column of type `real` gives it back."""
    (rounded,) = struct.unpack("f", struct.pack("f", number))
    return float(rounded)


@given(IMPORTANCES)
def test_an_importance_is_read_as_it_was_stored(importance: float) -> None:
    kept = kept_importance(importance)

    assert kept_importance(single_precision(kept)) == kept
    assert 0 <= kept <= 1
    assert math.copysign(1, kept) == 1


def test_a_memory_is_by_default_a_fact_of_medium_importance() -> None:
    request = CreateMemoryRequest(content="Likes tea")

    assert (request.kind, request.importance) == (MemoryKind.FACT, 0.5)


@pytest.mark.parametrize("content", ["", " ", "\t\n ", "\u2003\u3000", "\x1c", "x" * 4001])
def test_empty_and_oversized_contents_are_rejected(content: str) -> None:
    for model in (CreateMemoryRequest, ChangeMemoryRequest, MemorySuggestion):
        with pytest.raises(ValidationError):
            model.model_validate({"content": content})
    with pytest.raises(ValidationError):
        SearchMemoriesRequest(query=content)


@pytest.mark.parametrize(
    "content",
    [
        "x" * 4000,
        "\U0001f469\u200d\U0001f4bb",
        "\u202b\u05e9\u05dc\u05d5\u05dd\u202c",
        " padded ",
        "0",
    ],
    ids=["longest", "emoji", "right to left", "padded", "one digit"],
)
def test_words_are_kept_as_they_are(content: str) -> None:
    assert CreateMemoryRequest(content=content).content == content


@pytest.mark.parametrize(
    "fields",
    [
        {"importance": -0.1},
        {"importance": 1.1},
        {"importance": math.nan},
        {"importance": math.inf},
        {"importance": True},
        {"importance": "0.5"},
        {"importance": None},
        {"kind": "wish"},
        {"kind": 1},
        {"kind": None},
        {"content": None},
        {"content": "a\x00b"},
        {"content": "a\ud800b"},
        {"status": "accepted"},
        {"embedding": [1.0]},
        {"pinned": None},
        {"pinned": "true"},
        {"expires_at": "2020-01-31T09:00:00Z"},
        {"expires_at": "2126-01-31"},
        {"expires_at": "2126-01-31T09:00:00"},
        {"expires_at": 4923936000},
    ],
    ids=str,
)
def test_invalid_memory_fields_are_rejected(fields: dict[str, Any]) -> None:
    for model in (CreateMemoryRequest, ChangeMemoryRequest):
        with pytest.raises(ValidationError):
            model.model_validate({"content": "Likes tea", **fields})


def test_a_request_without_new_fields_has_the_hash_that_it_always_had() -> None:
    request = CreateMemoryRequest(content="Likes tea")

    assert request.model_dump_json() == '{"content":"Likes tea","kind":"fact","importance":0.5}'
    assert (
        '"pinned":true' in CreateMemoryRequest(content="Likes tea", pinned=True).model_dump_json()
    )


def test_an_expiry_is_removed_by_null() -> None:
    change = ChangeMemoryRequest.model_validate({"expires_at": None})

    assert change.changes() == {"expires_at": None}


@pytest.mark.parametrize("limit", [0, 101, -1, 1.5, "3", True, None])
def test_a_search_finds_between_one_and_a_hundred(limit: object) -> None:
    with pytest.raises(ValidationError):
        SearchMemoriesRequest.model_validate({"query": "tea", "limit": limit})


def test_an_update_names_only_the_changed_fields() -> None:
    change = ChangeMemoryRequest.model_validate({"kind": "event", "importance": 1})

    assert change.changes() == {"kind": MemoryKind.EVENT, "importance": 1.0}
