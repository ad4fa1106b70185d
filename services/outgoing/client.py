"""Single outgoing requests: one complete response within time and size limits, or an error.

The client keeps no cookies, follows no redirects, does not retry and uses no proxy.
"""

import asyncio
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import httpcore2
import httpx2

from services.outgoing.errors import (
    InvalidRequestError,
    RedirectedError,
    TimedOutError,
    TooLargeError,
)
from services.outgoing.network import Resolve
from services.outgoing.transport import GuardedTransport, Sending, guarded_transport, weight_of

MAX_BYTES: Final = 1024 * 1024
"""The default limit of a response."""

_CONNECT_TIMEOUT_S: Final = 5.0
# A small body may come in small pieces.
_SMALL: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DEFAULT_HEADERS: Final = {"User-Agent": "Everturn"}
# Decompressed, a response could be a thousand times what was counted.
_FORCED_HEADERS: Final = {"Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class OutgoingResponse:
    """A response of any status; header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class OutgoingClient:
    """Sends requests for tools; one for each worker process, closed at its end.

    `resolve`, `network` and `tls` replace the system's in tests.
    """

    def __init__(
        self,
        *,
        allowed_hosts: Collection[str],
        resolve: Resolve | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._transport: GuardedTransport = guarded_transport(
            allowed_hosts=allowed_hosts, resolve=resolve, network=network, tls=tls
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> OutgoingResponse:
        """Return the response to a request.

        Units: `timeout_s` bounds all of it, from resolving the host to the last byte.
        Errors: OutgoingError.
        """
        sending = Sending()
        request = _request(method, url, headers=headers or {}, content=content, sending=sending)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer(request, max_bytes)
        except TimeoutError:
            raise TimedOutError(reached=sending.reached) from None

    async def close(self) -> None:
        """Close all connections; requests in progress fail."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _answer(self, request: httpx2.Request, max_bytes: int) -> OutgoingResponse:
        response = await self._transport.handle_async_request(request)
        try:
            if response.status_code in _REDIRECTS:
                raise RedirectedError
            body = await _read(response, max_bytes)
        finally:
            # Closes the connection unless the response was read to its end.
            await response.aclose()
        return OutgoingResponse(response.status_code, response.headers, body)


def _request(
    method: str, url: str, *, headers: Mapping[str, str], content: bytes | None, sending: Sending
) -> httpx2.Request:
    timeouts = {"connect": _CONNECT_TIMEOUT_S, "read": None, "write": None, "pool": None}
    sent = httpx2.Headers(_DEFAULT_HEADERS)
    try:
        sent.update(headers)
        sent.update(_FORCED_HEADERS)
        return httpx2.Request(
            method,
            url,
            headers=sent,
            content=content,
            extensions={"timeout": timeouts, "trace": sending},
        )
    except (httpx2.InvalidURL, ValueError, TypeError):
        raise InvalidRequestError(reached=False) from None


async def _read(response: httpx2.Response, max_bytes: int) -> bytes:
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise TooLargeError(max_bytes)
    body, weight = bytearray(), 0
    async for chunk in response.aiter_raw():
        body += chunk
        weight += weight_of(chunk)
        if weight > max(max_bytes, _SMALL) or len(body) > max_bytes:
            raise TooLargeError(max_bytes)
    return bytes(body)
