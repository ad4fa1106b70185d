"""Owns how texts are made fit for any embedder, and how they are spread over requests."""

from collections.abc import Iterator, Sequence

from schema.wire import make_storable
from services.embeddings.errors import EmbeddingRefusedError


def prepared(texts: Sequence[str], *, longest_bytes: int) -> list[str]:
    """Return the texts as they are embedded: without white space around them, and cut.

    A blank text is refused: providers refuse it too, and a vector of zeros, the only honest one,
    has no cosine distance to anything.
    Units: `longest_bytes` counts UTF-8. Tokens of byte-level vocabularies are never more than
    bytes, so that a limit in tokens can be kept without a tokenizer.
    Errors: EmbeddingRefusedError.
    """
    return [
        _prepared(text, place=f"{number} of {len(texts)}", longest_bytes=longest_bytes)
        for number, text in enumerate(texts, start=1)
    ]


def _prepared(text: str, *, place: str, longest_bytes: int) -> str:
    # A character is at least a byte, so nothing beyond is looked at.
    stripped = make_storable(text.strip()[:longest_bytes])
    if not stripped:
        raise EmbeddingRefusedError(f"Text {place} is blank and can't be embedded.")
    return stripped.encode()[:longest_bytes].decode(errors="ignore").rstrip()


def requests(texts: Sequence[str], *, most_texts: int, most_bytes: int) -> Iterator[list[str]]:
    """Yield the texts in order, in as few lists as the limits allow; none is empty."""
    batch: list[str] = []
    batch_bytes = 0
    for text in texts:
        size = len(text.encode())
        if batch and (len(batch) == most_texts or batch_bytes + size > most_bytes):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(text)
        batch_bytes += size
    if batch:
        yield batch
