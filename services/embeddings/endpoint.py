"""The HTTP of an embedding provider: one request, its bounds, and its response checked.

Voyage and OpenAI respond alike: `{"data": [{"index": 0, "embedding": [0.1, …]}, …], …}`.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import httpx2
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from services.embeddings.embedder import (
    EmbeddingAnswerError,
    EmbeddingError,
    EmbeddingRefusedError,
    EmbeddingUnavailableError,
)
from services.outgoing.providers import isolate_requests
from services.outgoing.transport import tls_context
from services.retry_after import wait_asked_for

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
    """Return the most bytes that a response with this many vectors can have."""
    return _BYTES_AROUND + count * dimensions * _BYTES_PER_NUMBER


def vectors_in(answer: bytes, *, count: int, dimensions: int) -> list[list[float]]:
    """Return the vectors of an answer in the order of the texts, L2-normalised.

    Errors: EmbeddingAnswerError unless there is one for each text, finite and of that length.
    """
    try:
        entries = _Answer.model_validate_json(answer).data
    except ValidationError:
        # The cause repeats the answer, and would be logged with it.
        raise EmbeddingAnswerError("The embedding provider's response holds no vectors.") from None
    entries.sort(key=lambda entry: entry.index)
    if [entry.index for entry in entries] != list(range(count)):
        raise EmbeddingAnswerError(
            f"The embedding provider sent {len(entries)} vectors for {count} texts, "
            "or indexed them wrongly."
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


_RETRYABLE_STATUSES: Final = frozenset({408, 409, 425, 429})


class EmbeddingEndpoint:
    """Posts texts to one address.

    Units: `timeout_s` bounds a whole request, from the connection to the last byte.
    """

    def __init__(self, *, url: str, api_key: str | None, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_s),
            verify=tls_context(),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        )
        isolate_requests(self._client)

    async def vectors(
        self, body: Mapping[str, object], *, count: int, dimensions: int
    ) -> list[list[float]]:
        """Return the vectors of the `count` texts in `body`, in their order.

        Errors: EmbeddingError.
        """
        async with _failures_classified(), asyncio.timeout(self._timeout_s):
            answer = await self._post(body, at_most=most_bytes(count, dimensions))
        return vectors_in(answer, count=count, dimensions=dimensions)

    async def _post(self, body: Mapping[str, object], *, at_most: int) -> bytes:
        async with self._client.stream("POST", self._url, json=body) as response:
            if response.status_code != 200:
                raise _refusal(response)
            answer = bytearray()
            async for piece in response.aiter_bytes():
                answer += piece
                if len(answer) > at_most:
                    raise EmbeddingAnswerError("The embedding provider's response is too long.")
            return bytes(answer)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


@contextlib.asynccontextmanager
async def _failures_classified() -> AsyncIterator[None]:
    try:
        yield
    except (TimeoutError, httpx2.TimeoutException):
        raise EmbeddingUnavailableError("The embedding provider did not respond in time.") from None
    except httpx2.TransportError as error:
        # The cause may repeat what came over the wire, so only its name is kept.
        raise EmbeddingUnavailableError(
            "The embedding provider can't be reached, or closed the connection "
            f"({type(error).__name__})."
        ) from None
    except httpx2.HTTPError:
        raise EmbeddingAnswerError("The embedding provider's response can't be read.") from None


def _refusal(response: httpx2.Response) -> EmbeddingError:
    status = response.status_code
    if status == 429:
        return EmbeddingUnavailableError(
            "The embedding provider's rate limit was reached (HTTP 429).",
            retry_after=wait_asked_for(response.headers),
        )
    if status >= 500 or status in _RETRYABLE_STATUSES:
        return EmbeddingUnavailableError(
            f"The embedding provider is failing (HTTP {status}).",
            retry_after=wait_asked_for(response.headers),
        )
    if status in {401, 403}:
        return EmbeddingRefusedError(
            f"The embedding provider rejected the API key (HTTP {status})."
        )
    if status == 404:
        return EmbeddingRefusedError(
            "The embedding provider doesn't know the model or the address (HTTP 404)."
        )
    if status < 300:
        return EmbeddingAnswerError(
            f"The embedding provider sent an unexpected response (HTTP {status})."
        )
    return EmbeddingRefusedError(f"The embedding provider rejected the request (HTTP {status}).")
