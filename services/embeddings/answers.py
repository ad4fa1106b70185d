"""Owns reading the vectors out of a provider's answer, and the doubts about it.

Voyage and OpenAI answer alike: `{"data": [{"index": 0, "embedding": [0.1, …]}, …], …}`.
"""

import math
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from services.embeddings.errors import EmbeddingAnswerError

# A shorter vector has no direction that is worth anything.
_SHORTEST: Final = 1e-6
# A number as text, with its comma and the white space of a generous printer.
_BYTES_PER_NUMBER: Final = 64
_BYTES_AROUND: Final = 64 * 1024


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)

    index: int
    embedding: list[FiniteFloat]


class _Answer(BaseModel):
    data: list[_Entry]


def most_bytes(count: int, dimensions: int) -> int:
    """Return how long an honest answer with so many vectors can be at most."""
    return _BYTES_AROUND + count * dimensions * _BYTES_PER_NUMBER


def vectors_in(answer: bytes, *, count: int, dimensions: int) -> list[list[float]]:
    """Return the vectors of an answer in the order of the texts, L2-normalised.

    Errors: EmbeddingAnswerError unless there is one for each text, finite and of that length.
    """
    try:
        entries = _Answer.model_validate_json(answer).data
    except ValidationError:
        # The cause repeats the answer, and would be logged with it.
        raise EmbeddingAnswerError(
            "The embedding provider's answer does not hold vectors."
        ) from None
    entries.sort(key=lambda entry: entry.index)
    if [entry.index for entry in entries] != list(range(count)):
        raise EmbeddingAnswerError(
            f"The embedding provider sent {len(entries)} vectors for {count} texts, "
            "or did not say which is whose."
        )
    return [_checked(entry.embedding, dimensions) for entry in entries]


def normalised(vector: Sequence[float]) -> list[float]:
    """Return the vector with the length 1.

    Errors: EmbeddingAnswerError for one without a direction.
    """
    length = math.hypot(*vector)
    if not _SHORTEST < length < math.inf:
        raise EmbeddingAnswerError("The embedding provider sent a vector without a direction.")
    return [number / length for number in vector]


def _checked(vector: list[float], dimensions: int) -> list[float]:
    if len(vector) != dimensions:
        raise EmbeddingAnswerError(
            f"The embedding provider sent a vector of {len(vector)} dimensions, not {dimensions}."
        )
    return normalised(vector)
