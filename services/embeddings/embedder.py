"""Owns what every embedder promises; what it says of a text is the embedder's own."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol


class Purpose(StrEnum):
    """What a vector is for; some models embed a question unlike the text that answers it."""

    DOCUMENT = "document"
    QUERY = "query"


class Embedder(Protocol):
    """Turns texts into vectors; two with the same `name` give comparable ones, no others do."""

    @property
    def name(self) -> str:
        """What is stored with every vector; it changes with the model and with the dimensions."""

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""

    @property
    def max_batch(self) -> int:
        """How many texts are one good unit of work; `embed` takes more and splits them."""

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        """Return a vector for each text, in the order of the texts.

        The white space around a text counts for nothing, NUL and lone surrogates count as
        U+FFFD, and a very long text is embedded by its beginning.
        Shapes: each vector has `dimensions` finite floats and is L2-normalised; never zero.
        Errors: EmbeddingRefusedError before anything is sent if a text is blank; EmbeddingError.
        Idempotency: nothing is kept; a repeated call costs as much as the first.
        """

    async def close(self) -> None:
        """Give connections and threads back; the embedder is of no use afterwards."""
