"""The HTTP client of a provider of models or embeddings: many users' requests, kept apart.

The HTTP library reads on without a pause as long as there is something: endless interim responses
(100 to 199), a body in chunks of a byte, extensions of chunks, trailers. It stores cookies, and
sends those that came with one user's answer with the requests of all others. And it takes what
stands behind one response for the response to the next request.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Final

import httpcore2
import httpx2

from services.outgoing.network import PiecewiseStream, WireLimit
from services.outgoing.transport import close_after_surplus

_COOKIE: Final = b"set-cookie"
# A model may think for minutes: networks forget a connection that is silent for so long.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
        if hasattr(socket, name)
    ),
)


class _PacedNetwork(httpcore2.AsyncNetworkBackend):
    def __init__(self, network: httpcore2.AsyncNetworkBackend) -> None:
        self._network = network

    async def connect_tcp(  # noqa: PLR0917 -- the interface of the library
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        options = (*_KEEP_ALIVE, *(socket_options or ()))
        stream = await self._network.connect_tcp(host, port, timeout, local_address, options)
        return PiecewiseStream(stream, whole=True)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: WireLimit) -> None:
        self._inner = inner
        self._limit = limit

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._limit.body(self._inner)

    async def aclose(self) -> None:
        close_after_surplus(self._inner)
        await self._inner.aclose()


class _Transport(httpx2.AsyncBaseTransport):
    """A transport whose responses leave nothing behind."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        limit = WireLimit()
        with limit.applied():
            response = await self._inner.handle_async_request(request)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Stream(response.stream, limit)
        # Thousands of them would take the client a second to read.
        response.headers = httpx2.Headers(
            [(name, value) for name, value in response.headers.raw if name.lower() != _COOKIE]
        )
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def isolate_requests(client: httpx2.AsyncClient) -> None:
    """Keep the client's requests apart, also those through its proxies from the environment.

    A client that is given a transport of its own ignores those proxies.
    """
    # No public way leads there; tests attack a client with each of these.
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001
        if isinstance(transport, httpx2.AsyncHTTPTransport):
            pool = transport._pool  # noqa: SLF001
            pool._network_backend = _PacedNetwork(pool._network_backend)  # noqa: SLF001
    client._transport = _Transport(client._transport)  # noqa: SLF001
    client._mounts = {  # noqa: SLF001
        pattern: transport and _Transport(transport)
        for pattern, transport in client._mounts.items()  # noqa: SLF001
    }
