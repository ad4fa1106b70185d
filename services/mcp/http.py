"""Owns a connection to an MCP server over streamable HTTP: how much it may answer, and where."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from services.mcp.destinations import check_destination
from services.mcp.errors import McpServerError

MAX_BYTES: Final = 16 * 1024 * 1024
"""What a server may answer while its tools are listed."""

_CONNECT_TIMEOUT_S: Final = 5.0
_READ_TIMEOUT_S: Final = 30.0


@asynccontextmanager
async def connect(
    url: str, *, headers: Mapping[str, str], allowed_hosts: Collection[str]
) -> AsyncIterator[TransportStreams]:
    """Connect while the block runs.

    Errors: McpServerError; those of httpx2.
    """
    await check_destination(url, allowed_hosts=allowed_hosts)
    timeout = httpx2.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    async with (
        httpx2.AsyncClient(
            # Compressed, an answer could be a thousand times what was counted.
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=timeout,
            transport=_BoundedTransport(httpx2.AsyncHTTPTransport(), MAX_BYTES),
            trust_env=False,
        ) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams


class _BoundedTransport(httpx2.AsyncBaseTransport):
    """Counts what all answers of a connection amount to."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, limit: int) -> None:
        self._inner = inner
        self._left = limit

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise McpServerError("It answers compressed, although it was asked not to.")
        stream = response.stream
        if not isinstance(stream, httpx2.AsyncByteStream):  # pragma: no cover -- the library's own
            raise TypeError("the stream is not asynchronous")
        return httpx2.Response(
            status_code=response.status_code,
            headers=response.headers,
            stream=_BoundedStream(stream, self),
            extensions=response.extensions,
        )

    def count(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            raise McpServerError(f"It answered more than {MAX_BYTES:,} bytes.")

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, transport: _BoundedTransport) -> None:
        self._inner = inner
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._transport.count(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
