"""Validation of a provider's answer."""

import json
import math
from typing import Any

import pytest

from services.embeddings.embedder import EmbeddingAnswerError
from services.embeddings.endpoint import most_bytes, vectors_in

SECRET = "words of a person"


def entry(index: object, vector: object) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": vector}


def answer(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"object": "list", "data": entries}).encode()


def test_vectors_come_in_the_order_of_the_texts_with_the_length_1() -> None:
    shuffled = answer(entry(1, [0, 0.5]), entry(0, [3, 4.0]))

    assert vectors_in(shuffled, count=2, dimensions=2) == [[0.6, 0.8], [0.0, 1.0]]


@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e200, 1e300])
def test_a_vector_of_any_length_gets_the_length_1(size: float) -> None:
    [vector] = vectors_in(answer(entry(0, [size, -size])), count=1, dimensions=2)

    assert math.hypot(*vector) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "vector",
    [
        [0.0, 0.0],
        [1e-9, 1e-9],
        [1.7e308, 1.7e308],
        [1.0],
        [1.0, 1.0, 1.0],
        [],
        [1.0, None],
        [1.0, math.nan],
        [1.0, math.inf],
        [1.0, 10**400],
        [1.0, "1.0"],
        [1.0, True],
        [[1.0, 1.0]],
        "AACAPwAAgD8=",
        None,
        {},
    ],
)
def test_vectors_of_another_size_are_rejected(vector: object) -> None:
    with pytest.raises(EmbeddingAnswerError):
        vectors_in(answer(entry(0, vector)), count=1, dimensions=2)


@pytest.mark.parametrize(
    "indices", [[], [0], [0, 0], [1, 2], [0, 1, 2], [-1, 0], ["0", 1], [0.5, 1]]
)
def test_each_text_needs_one_vector(indices: list[object]) -> None:
    with pytest.raises(EmbeddingAnswerError):
        vectors_in(answer(*(entry(index, [1, 1]) for index in indices)), count=2, dimensions=2)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html></html>",
        b"null",
        b"[]",
        b'{"data": null}',
        b'{"data": [',
        b"\xff\xfe",
        b"[" * 9999,
    ],
)
def test_malformed_answers_are_rejected(text: bytes) -> None:
    with pytest.raises(EmbeddingAnswerError):
        vectors_in(text, count=1, dimensions=2)


def test_a_refused_answer_is_not_repeated() -> None:
    with pytest.raises(EmbeddingAnswerError) as refusal:
        vectors_in(answer(entry(0, SECRET)), count=1, dimensions=2)

    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


def test_a_correct_answer_stays_within_its_size() -> None:
    numbers = [-1.2345678901234567e-300] * 1024
    printed = json.dumps({"data": [entry(index, numbers) for index in range(4)]}, indent=8)

    assert len(printed) < most_bytes(4, 1024)
