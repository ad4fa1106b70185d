"""The connection to a provider: read in small pieces, so that other tasks run in between.

The HTTP library reads on without a pause as long as there is something: endless interim responses
(100 to 199), or a body in chunks of a byte.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore2
import httpx2

# Of interim responses, about 5 ms of CPU.
_PIECE_BYTES: Final = 2 * 1024


class _PacedStream(httpcore2.AsyncNetworkStream):
    """A connection that gives its reader only so much at once."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the interface of the library
    ) -> bytes:
        piece = await self._inner.read(min(max_bytes, _PIECE_BYTES), timeout)
        if len(piece) == _PIECE_BYTES:
            # There may be more at once. Otherwise the next read waits anyway.
            await asyncio.sleep(0)
        return piece

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
    ) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
    ) -> httpcore2.AsyncNetworkStream:
        return _PacedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 -- as above
        return self._inner.get_extra_info(info)


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
        stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        return _PacedStream(stream)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def pace_reads(client: httpx2.AsyncClient) -> None:
    """Let the client, and its proxies from the environment, read in small pieces.

    A client that is given a transport of its own ignores those proxies.
    """
    # No public way leads there; a test floods a client with interim responses.
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001
        if isinstance(transport, httpx2.AsyncHTTPTransport):
            pool = transport._pool  # noqa: SLF001
            pool._network_backend = _PacedNetwork(pool._network_backend)  # noqa: SLF001
