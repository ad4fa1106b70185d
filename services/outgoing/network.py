"""Connecting: a host is resolved once, its addresses are checked, and exactly those are used.

The check must happen here: a name that is checked earlier may resolve to another address by the
time of the connection. TLS still verifies the name of the host, without resolving it again.
"""

import asyncio
import socket
import ssl
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any, Final, NoReturn, TypeAlias

import httpcore2
from httpcore2 import SOCKET_OPTION

from services.outgoing.errors import ForbiddenAddressError, UnknownHostError
from services.outgoing.hosts import AllowedHosts, is_public

_CONNECT_TIMEOUT_S: Final = 5.0
_MAX_ADDRESSES: Final = 6
_THREADS: Final = 16
_MOST_AROUND_BYTES: Final = 128 * 1024
_AROUND_CHUNK_BYTES: Final = 64
# Of interim responses, about 5 ms of CPU.
_PIECE_BYTES: Final = 2 * 1024
# The second, for a name without addresses, is not on all platforms.
_NO_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, best first. Errors: UnknownHostError."""


class SystemResolver:
    """Resolves with `getaddrinfo`, in separate threads.

    The event loop resolves in threads that can't be stopped, from a pool that the whole process
    shares: an unresponsive name server would block everything else in it. Here, concurrent
    lookups of one host share one query, and queries have a pool to themselves.
    """

    def __init__(self, *, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolving")
        self._queries: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host, best first.

        Errors: UnknownHostError.
        """
        if _is_address(host):
            return [host]
        query = self._queries.get((host, port)) or self._query(host, port)
        try:
            async with asyncio.timeout(self._timeout_s):
                # A caller that times out does not cancel the query for the others.
                return await asyncio.shield(query)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise UnknownHostError(is_final=_does_not_exist(error)) from None

    def close(self) -> None:
        """Start no more queries; those in progress end on their own."""
        self._threads.shutdown(wait=False)

    def _query(self, host: str, port: int) -> "asyncio.Task[list[str]]":
        task = asyncio.create_task(self._addresses(host, port))
        self._queries[host, port] = task
        task.add_done_callback(lambda done: self._forget((host, port), done))
        return task

    def _forget(self, key: tuple[str, int], task: "asyncio.Task[list[str]]") -> None:
        self._queries.pop(key, None)
        if not task.cancelled():
            # Retrieves the error, in case all callers have timed out.
            task.exception()

    async def _addresses(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _getaddrinfo, host, port)
        return list(dict.fromkeys(found))


def _getaddrinfo(host: str, port: int) -> list[str]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in answers]


def _does_not_exist(error: Exception) -> bool:
    """Return whether a name server says that the name does not exist, as against no answer."""
    return isinstance(error, UnicodeError) or (
        isinstance(error, socket.gaierror) and error.errno in _NO_NAME
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class WireLimit:
    """How much of a response may be read that is not its body.

    The library limits the head itself, and each line, but neither the number of interim responses
    (100 to 199) before it, all of which it reads without a pause, nor that of trailers, nor what
    the extensions of all chunks come to.
    """

    def __init__(self) -> None:
        self.has_head = False
        self._left = _MOST_AROUND_BYTES

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply it to what the block reads."""
        token = _wire_limit.set(self)
        try:
            yield
        finally:
            _wire_limit.reset(token)

    async def body(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks of the body, whose head has been read. Errors: those of the library."""
        self.has_head, self._left = True, _MOST_AROUND_BYTES
        reading = aiter(chunks)
        while True:
            # Not around the loop: what runs between two chunks may read another response.
            with self.applied():
                chunk = await anext(reading, None)
            if chunk is None:
                return
            self._left += len(chunk) + _AROUND_CHUNK_BYTES
            yield chunk

    def count(self, size: int) -> None:
        """Count what was read. Errors: httpcore2.RemoteProtocolError beyond the limit."""
        self._left -= size
        if self._left < 0:
            raise httpcore2.RemoteProtocolError("no response in all that was read")


_wire_limit: ContextVar[WireLimit | None] = ContextVar("wire_limit", default=None)


class PiecewiseStream(httpcore2.AsyncNetworkStream):
    """A connection read in small pieces: all of it, or until the head of a response is complete.

    The HTTP library reads on without a pause as long as there is something: endless interim
    responses (100 to 199), or a body in chunks of a byte.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkStream, *, whole: bool = False) -> None:
        self._inner = inner
        self._whole = whole

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the interface of the library
    ) -> bytes:
        """Read, and let other tasks run where there may be more at once."""
        limit = _wire_limit.get()
        if self._whole or (limit is not None and not limit.has_head):
            max_bytes = min(max_bytes, _PIECE_BYTES)
        piece = await self._inner.read(max_bytes, timeout)
        if limit is not None:
            limit.count(len(piece))
        if len(piece) == _PIECE_BYTES:
            # Otherwise the next read waits anyway.
            await asyncio.sleep(0)
        return piece

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
    ) -> None:
        """Write all of it."""
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
    ) -> httpcore2.AsyncNetworkStream:
        """Return the encrypted connection, read in the same way."""
        inner = await self._inner.start_tls(ssl_context, server_hostname, timeout)
        return PiecewiseStream(inner, whole=self._whole)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 -- as above
        """Return what the library knows of the connection."""
        return self._inner.get_extra_info(info)


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses, and to the hosts that are allowed by name.

    Errors: ForbiddenAddressError, UnknownHostError; httpcore2.ConnectError and ConnectTimeout.
    """

    def __init__(
        self,
        allowed: AllowedHosts,
        resolve: Resolve,
        network: httpcore2.AsyncNetworkBackend,
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._network = network

    async def connect_tcp(  # noqa: PLR0917 -- the interface of the library
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first of the host's addresses that answers."""
        addresses = (await self._permitted(host, port))[:_MAX_ADDRESSES]
        loop = asyncio.get_running_loop()
        until = loop.time() + (_CONNECT_TIMEOUT_S if timeout is None else timeout)
        failed: Exception = httpcore2.ConnectTimeout()
        for position, address in enumerate(addresses):
            # Each gets its share, so that an unresponsive one leaves time for the next.
            share_s = (until - loop.time()) / (len(addresses) - position)
            try:
                stream = await self._network.connect_tcp(
                    address,
                    port,
                    timeout=max(share_s, 0),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
            else:
                return PiecewiseStream(stream)
        raise failed

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 -- the interface of the library
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 -- as above
        socket_options: Iterable[SOCKET_OPTION] | None = None,  # noqa: ARG002 -- as above
    ) -> NoReturn:
        """Refuse: such sockets are on this machine."""
        raise ForbiddenAddressError

    async def sleep(self, seconds: float) -> None:
        """Wait between two attempts of the library."""
        await asyncio.sleep(seconds)

    async def _permitted(self, host: str, port: int) -> Sequence[str]:
        is_allowed = self._allowed.allows(host, port)
        try:
            addresses = await self._resolve(host, port)
        except UnknownHostError:
            if is_allowed:
                # In a network of containers, a name only exists while its container runs.
                raise UnknownHostError(is_final=False) from None
            raise
        if not addresses:
            raise UnknownHostError
        if not is_allowed and not all(map(is_public, addresses)):
            raise ForbiddenAddressError
        return addresses
