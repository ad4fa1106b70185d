"""A transport for httpx2 clients that checks where it connects, and limits what it reads.

It follows no redirects; a client that does sends another request, whose address is checked, too.
"""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.cookiejar import Cookie, CookieJar
from typing import Any, Final, TypeAlias

import httpcore2
import httpx2

from services.outgoing.errors import (
    BrokenConnectionError,
    CompressedError,
    ConnectFailedError,
    InvalidRequestError,
    NotTrustedError,
    TimedOutError,
    TooLargeError,
)
from services.outgoing.hosts import AllowedHosts
from services.outgoing.network import GuardedNetwork, Resolve, SystemResolver, WireLimit

Headers: TypeAlias = list[tuple[bytes, bytes]]

MAX_COOKIES: Final = 20
"""How many cookies a response may set."""

_MAX_CONNECTIONS: Final = 300
_MAX_IDLE_CONNECTIONS: Final = 20
# Below the five seconds of Node's servers: a request on a connection that the server is closing
# fails, and it is unknown whether it was read.
_IDLE_S: Final = 2.0
_LAST_PORT: Final = 65_535
# What is done for a piece of a body costs more than its bytes: a peer may send them one by one.
_PIECE_BYTES: Final = 64
_PIECES_AT_ONCE: Final = 32
_NO_TLS: Final = frozenset({"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER"})
"""What OpenSSL, by version, says of a server that answers in plain text."""


def weight_of(piece: bytes) -> int:
    """Return what a piece of a body counts as, in bytes."""
    return max(len(piece), _PIECE_BYTES)


def close_after_surplus(stream: object) -> None:
    """Have the connection of a response closed, with its stream, if more than that has arrived.

    The library would take it for the response to the next request, which may be another user's.
    """
    # No public way leads there; tests send two responses to one request.
    found: Any = stream
    for name in ("_httpcore_stream", "_stream", "_connection", "_h11_state"):
        found = getattr(found, name, found)
    if getattr(found, "trailing_data", (b"", False))[0]:
        # What has failed is not used again.
        found.send_failed()


class Sending:
    """How far a request got, by httpcore2's trace extension."""

    def __init__(self) -> None:
        self.reached = False
        self.wire = WireLimit()

    async def __call__(self, event: str, info: Mapping[str, object], /) -> None:
        """Note that the first byte is about to be written, or can't be; and the end of the head."""
        if event == "http11.receive_response_headers.complete":
            self.wire.has_head = True
        elif event == "http11.send_request_headers.started":
            self.reached = True
        elif event == "http11.send_request_headers.failed":
            # The head is serialized as a whole before a byte of it is sent.
            self.reached = not isinstance(info.get("exception"), httpcore2.LocalProtocolError)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """A connection pool that checks addresses and limits responses.

    Units: `max_response_bytes` limits the body as it is on the wire; a piece counts as 64 or more.
    Errors: OutgoingError.
    """

    def __init__(
        self,
        pool: httpcore2.AsyncConnectionPool,
        resolver: SystemResolver,
        *,
        max_response_bytes: int | None,
    ) -> None:
        self._pool = pool
        self._resolver = resolver
        self._max_response_bytes = max_response_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and return the response as soon as its headers have arrived."""
        sending = _sending_of(request)
        with _failures_classified(sending), sending.wire.applied():
            answer = await self._pool.handle_async_request(_wire_request(request, sending))
        stream = _BoundedStream(answer.stream, self, sending)
        response = httpx2.Response(
            status_code=answer.status,
            headers=_without_flood_of_cookies(answer.headers),
            stream=stream,
            extensions=answer.extensions,
        )
        try:
            self._check_headers(response)
        except BaseException:
            await stream.aclose()
            raise
        return response

    def count(self, chunk: bytes, *, before: int) -> int:
        """Return how much has been read with this chunk. Errors: TooLargeError."""
        count = before + weight_of(chunk)
        if self._max_response_bytes is not None and count > self._max_response_bytes:
            raise TooLargeError(self._max_response_bytes)
        return count

    async def aclose(self) -> None:
        """Close all connections."""
        self._resolver.close()
        await self._pool.aclose()

    @staticmethod
    def _check_headers(response: httpx2.Response) -> None:
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity"}:
            raise CompressedError


class FewCookies(CookieJar):
    """The cookies of a server, e.g. of a load balancer, of which there can't be ever more."""

    def set_cookie(self, cookie: Cookie) -> None:
        """Keep a cookie; beyond the limit, those from before are forgotten."""
        if len(self) >= MAX_COOKIES:
            self.clear()
        super().set_cookie(cookie)


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of a response, counted as it is read."""

    def __init__(self, inner: object, transport: GuardedTransport, sending: Sending) -> None:
        if not isinstance(inner, AsyncIterable):  # pragma: no cover -- the library's own
            raise TypeError("the stream is not asynchronous")
        self._inner = inner
        self._transport = transport
        self._sending = sending

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read_bytes, pieces = 0, 0
        with _failures_classified(self._sending):
            async for chunk in self._sending.wire.body(self._inner):
                read_bytes = self._transport.count(chunk, before=read_bytes)
                pieces += 1
                if not pieces % _PIECES_AT_ONCE:
                    # Those that have arrived are read without a pause in which others could run.
                    await asyncio.sleep(0)
                yield chunk

    async def aclose(self) -> None:
        close_after_surplus(self._inner)
        close = getattr(self._inner, "aclose", None)
        if close is not None:
            await close()


def guarded_transport(
    *,
    allowed_hosts: Collection[str],
    max_response_bytes: int | None = None,
    resolve: Resolve | None = None,
    network: httpcore2.AsyncNetworkBackend | None = None,
    tls: ssl.SSLContext | None = None,
) -> GuardedTransport:
    """Return a transport with its own connections; its owner closes it."""
    resolver = SystemResolver()
    guarded = GuardedNetwork(
        AllowedHosts.parse(allowed_hosts),
        resolve or resolver,
        network or httpcore2.AnyIOBackend(),
    )
    pool = httpcore2.AsyncConnectionPool(
        ssl_context=tls or tls_context(),
        max_connections=_MAX_CONNECTIONS,
        max_keepalive_connections=_MAX_IDLE_CONNECTIONS,
        keepalive_expiry=_IDLE_S,
        network_backend=guarded,
    )
    return GuardedTransport(pool, resolver, max_response_bytes=max_response_bytes)


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context of this process. It takes 20 ms and a megabyte, so there is one."""
    return httpx2.create_ssl_context()


def _without_flood_of_cookies(headers: Headers) -> Headers:
    """Return the headers without cookies if there are too many: a client needs 0.1 ms for each."""
    cookies = [name for name, _ in headers if name.lower() == b"set-cookie"]
    if len(cookies) <= MAX_COOKIES:
        return headers
    return [(name, value) for name, value in headers if name.lower() != b"set-cookie"]


def _sending_of(request: httpx2.Request) -> Sending:
    sending = request.extensions.get("trace")
    return sending if isinstance(sending, Sending) else Sending()


def _wire_request(request: httpx2.Request, sending: Sending) -> httpcore2.Request:
    port = request.url.port
    is_port = port is None or 0 < port <= _LAST_PORT
    if request.url.scheme not in {"http", "https"} or not request.url.host or not is_port:
        raise InvalidRequestError(reached=False)
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=port,
            target=request.url.raw_path,
        ),
        headers=request.headers.raw,
        content=request.stream,
        extensions={**request.extensions, "trace": sending},
    )


@contextmanager
def _failures_classified(sending: Sending) -> Iterator[None]:
    """Translate the library's errors; their texts are dropped, as some come from the server."""
    try:
        yield
    except httpcore2.PoolTimeout:
        raise ConnectFailedError("Too many connections are open.") from None
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
        # The library drops the cause of its errors, but keeps it among their arguments.
        for cause in error.args:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise NotTrustedError("The TLS certificate is invalid.") from None
            if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
                raise NotTrustedError("The port does not use TLS.") from None
        raise ConnectFailedError from None
    except httpcore2.TimeoutException:
        raise TimedOutError(reached=sending.reached) from None
    except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol):
        raise InvalidRequestError(reached=sending.reached) from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError):
        raise BrokenConnectionError(reached=sending.reached) from None
