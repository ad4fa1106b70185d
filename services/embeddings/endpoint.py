"""Owns the HTTP of an embedding provider: one request, its bounds, the kinds of its failure."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx2

from services.embeddings.answers import most_bytes, vectors_in
from services.embeddings.errors import (
    EmbeddingAnswerError,
    EmbeddingError,
    EmbeddingRefusedError,
    EmbeddingUnavailableError,
)
from services.retry_after import wait_asked_for

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
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        )

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
                    raise EmbeddingAnswerError("The embedding provider's answer does not end.")
            return bytes(answer)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


@contextlib.asynccontextmanager
async def _failures_classified() -> AsyncIterator[None]:
    try:
        yield
    except (TimeoutError, httpx2.TimeoutException):
        raise EmbeddingUnavailableError("The embedding provider did not answer in time.") from None
    except httpx2.TransportError as error:
        # The cause may repeat what came over the wire, so only its name is kept.
        raise EmbeddingUnavailableError(
            "The embedding provider can't be reached, or broke off its answer "
            f"({type(error).__name__})."
        ) from None
    except httpx2.HTTPError:
        raise EmbeddingAnswerError("The embedding provider's answer can't be read.") from None


def _refusal(response: httpx2.Response) -> EmbeddingError:
    status = response.status_code
    if status == 429:
        return EmbeddingUnavailableError(
            "The embedding provider is limiting the rate of requests (HTTP 429).",
            retry_after=wait_asked_for(response.headers),
        )
    if status >= 500 or status in _RETRYABLE_STATUSES:
        return EmbeddingUnavailableError(
            f"The embedding provider is failing (HTTP {status}).",
            retry_after=wait_asked_for(response.headers),
        )
    if status in {401, 403}:
        return EmbeddingRefusedError(
            f"The embedding provider refused the credentials of this server (HTTP {status})."
        )
    if status == 404:
        return EmbeddingRefusedError(
            "The embedding provider knows no such model or address (HTTP 404)."
        )
    if status < 300:
        return EmbeddingAnswerError(f"The embedding provider sent no answer (HTTP {status}).")
    return EmbeddingRefusedError(f"The embedding provider refused the request (HTTP {status}).")
