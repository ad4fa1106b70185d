"""The interface of embedders, their errors, and how texts are prepared for them.

EmbeddingError
├── EmbeddingUnavailableError    temporary: a later attempt may succeed; may say when
├── EmbeddingRefusedError        final for this call: a blank text, the key, the model, the size
└── EmbeddingAnswerError         an invalid response; worth a few more attempts, no more

Nothing is retried here: that belongs to Temporal. No message holds a text, a key or the words of
a provider, which may repeat both.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final, Protocol
from unicodedata import normalize

import structlog
from prometheus_client import Counter

from schema.wire import make_storable

_log = structlog.get_logger(__name__)


class EmbeddingError(Exception):
    """The texts have no vectors."""


class EmbeddingUnavailableError(EmbeddingError):
    """The provider can't be reached, is failing, or limits the rate of requests."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EmbeddingRefusedError(EmbeddingError):
    """The call is refused and will be again."""


class EmbeddingAnswerError(EmbeddingError):
    """The response doesn't hold the vectors that were requested."""


def prepared(texts: Sequence[str], *, longest_bytes: int) -> list[str]:
    """Return the texts as they are embedded: normalised, stripped of white space, and cut.

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
    # Compatibility characters, e.g. full-width letters, are other tokens with the same meaning.
    stripped = make_storable(normalize("NFKC", text.strip()[:longest_bytes])).strip()
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


class Purpose(StrEnum):
    """What a vector is for; some models embed queries and documents differently."""

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
        """A good number of texts for one call; `embed` takes more and splits them."""

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        """Return a vector for each text, in the order of the texts.

        White space around a text is ignored, NUL and lone surrogates count as
        U+FFFD, and a very long text is embedded by its beginning.
        Shapes: each vector has `dimensions` finite floats and is L2-normalised; never zero.
        Errors: EmbeddingRefusedError before anything is sent if a text is blank; EmbeddingError.
        Idempotency: nothing is cached; a repeated call costs as much as the first.
        """

    async def close(self) -> None:
        """Release connections and threads; the embedder can't be used afterwards."""


VECTOR_TIMEOUT: Final = timedelta(seconds=5)
"""How long a request waits for a vector, whatever the embedder's own timeout."""

SEARCH_VECTOR_TIMEOUT: Final = timedelta(seconds=2)
"""Words alone give results too, so a search waits less for its vector than other requests."""


async def vector_of(
    embedder: Embedder, text: str, *, purpose: Purpose, within: timedelta
) -> list[float]:
    """Return the vector of a text.

    Units: `within` bounds the wait.
    Errors: EmbeddingError; EmbeddingUnavailableError also at the timeout.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            [vector] = await embedder.embed([text], purpose=purpose)
    except TimeoutError:
        raise EmbeddingUnavailableError("The embedder did not answer in time.") from None
    return vector


async def vector_or_none(
    embedder: Embedder,
    text: str,
    *,
    within: timedelta,
    purpose: Purpose = Purpose.DOCUMENT,
    missed: Counter | None = None,
) -> list[float] | None:
    """Return the vector of a text, or None if the embedder fails or takes too long: `missed`."""
    try:
        return await vector_of(embedder, text, purpose=purpose, within=within)
    except EmbeddingError as error:
        _log.warning("text_not_embedded", purpose=purpose.value, cause=type(error).__name__)
        if missed is not None:
            missed.inc()
        return None
