"""The HTTP server's protocol: uvicorn's, with bounds on what a client may send, hold and delay.

uvicorn and its parser have none: they collect a head of any size, copy it with each read, and wait
for the rest for ever. How many connections there may be is decided in `api/connections.py`.
"""

import asyncio
import math
from enum import Enum
from typing import Any, Final, NoReturn

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api import refusals
from api.connections import ConnectionBounds, OpenConnections, untaken_bytes
from api.refusals import Refusal

_MOST_PIPELINED: Final = 16
_SLOWEST_BODY: Final = 1024
"""Bytes per second that a body must have on average over each `body_timeout_s`."""
_SLOWEST_READER: Final = 16 * 1024
"""Bytes that a client must take within each `stall_timeout_s` while more than that wait for it."""
_LAG_S: Final = 0.5
"""How late a check may be before it is the process that is late, not the client."""
_LINGER_S: Final = 2.0
"""How long a refused client may read the reason: closing earlier would discard it on the way."""


class ServerConfig(uvicorn.Config):
    """The configuration of a server whose connections are bounded."""

    def __init__(
        self,
        app: ASGIApp,
        open_connections: OpenConnections,
        **options: Any,  # noqa: ANN401 -- uvicorn's own
    ) -> None:
        super().__init__(
            app,
            http=BoundedHttpProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # Without it uvicorn would trust every client on this machine.
            forwarded_allow_ips=[str(net) for net in open_connections.bounds.trusted_proxies],
            **options,
        )
        self.open_connections = open_connections


class _Phase(Enum):
    """What a connection waits for."""

    IDLE = "the next request, for which uvicorn waits `timeout_keep_alive`"
    HEAD = "the end of a head"
    BODY = "the end of a body"


# Looked up several times for each request.
_IDLE, _HEAD, _BODY = _Phase


class _RefusedError(Exception):
    """Stops the parser, which hides it behind an error of its own."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection.

    A client over a bound gets an error, and the connection is closed. While an earlier response is
    under way an error would be taken for it: then the rest is ignored, and the connection closed
    after that response.
    """

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = config.open_connections
        self._bounds: ConnectionBounds = config.open_connections.bounds
        self._answering: RequestResponseCycle | None = None
        self._phase = _HEAD
        self._since = self.loop.time()
        self._read_bytes = 0
        """All that was read in this phase, from the first read on in which it began."""
        self._head_bytes = 0
        self._body_bytes = 0
        self._body_bytes_before = 0
        """Those that had come when the clock last started."""
        self._pieces: list[bytes] = []
        """Of a body, from one read: passed on together, since each costs as much as all of them."""
        self._barren_bytes = 0
        """Read since the last byte of a body: extensions of chunks, trailers."""
        self._is_deaf = False
        """Whether what comes is thrown away, since the connection is about to be closed."""
        self._refusal = refusals.INVALID
        self._unsent: tuple[int, float] | None = None
        self._check: asyncio.TimerHandle | None = None
        self._check_due = 0.0

    # The transport's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._check_after(self._bounds.shortest_s)
        self._connections.add(self, None if self.client is None else self.client[0])

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything."""
        if self._check is not None:
            self._check.cancel()
        self._connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, within the bounds."""
        self._unset_keepalive_if_required()
        if self._is_deaf:
            return
        if self._phase is _IDLE:
            self._begin(_HEAD)
        self._read_bytes += len(data)
        self._barren_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse(self._refusal)
        else:
            self._pass_body()
            self._weigh()

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read."""
        super().pause_writing()
        self._unsent = (untaken_bytes(self.transport), self.loop.time())

    # The parser's calls

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._head_bytes = 0
        if self._phase is not _HEAD:
            self._begin(_HEAD)

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        super().on_url(url)
        if len(self.url) > refusals.LONGEST_URL:
            self._stop(refusals.LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A trailer is ignored: uvicorn would add it to the request's headers."""
        if self._phase is not _HEAD:
            return
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if len(self.headers) > refusals.MOST_HEADERS:
            self._stop(refusals.MANY_HEADERS)
        if self._head_bytes > self._bounds.max_head_bytes:
            self._stop(refusals.large_head(self._bounds.max_head_bytes))

    def on_headers_complete(self) -> None:
        """Check the head, and start the request."""
        self._connections.has_request(self)
        self._check_head()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._stop(refusals.INVALID)
            return  # see _ignore_upgrade
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._stop(refusals.INVALID)
        super().on_headers_complete()
        if self.expect_100_continue:
            # Its client may leave out the body after an error: then the next request follows.
            self.cycle.keep_alive = False
        self._body_bytes = self._body_bytes_before = self._barren_bytes = 0
        self._begin(_BODY)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        self._barren_bytes = 0
        self._pieces.append(body)
        if len(b"1\r\n\r\n") * len(self._pieces) > self._bounds.max_head_bytes + self._body_bytes:
            self._stop(refusals.FRAMING)

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        if self._phase is _BODY:
            self._pass_body()
            super().on_message_complete()
            self._phase = _IDLE

    # The application's calls

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 -- uvicorn's own type
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Give the client a last while for the rest of a body that nobody needed."""
        super().on_response_complete()
        if self._phase is _BODY:
            self._since = self.loop.time()

    # The bounds

    def _stop(self, refusal: Refusal) -> NoReturn:
        """Leave the parser."""
        self._refusal = refusal
        raise _RefusedError

    def _begin(self, phase: _Phase) -> None:
        self._phase = phase
        self._since = self.loop.time()
        self._read_bytes = 0

    def _check_head(self) -> None:
        """Refuse what servers understand differently, so that nothing can hide a request."""
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            self._stop(refusals.VERSION)
        hosts = [name for name, _ in self.headers].count(b"host")
        for name, value in self.headers:
            if name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
                self._stop(refusals.CODING)
        if hosts > 1 or (not hosts and version == "1.1"):
            self._stop(refusals.HOST)

    def _pass_body(self) -> None:
        if self._pieces:
            super().on_body(b"".join(self._pieces))
            self._pieces.clear()

    def _weigh(self) -> None:
        """Refuse a head that is too large, and a body that is mostly not body."""
        limit = self._bounds.max_head_bytes
        if self._phase is _HEAD and self._read_bytes > limit:
            self.refuse(refusals.large_head(limit))
        elif self._phase is _BODY:
            around = self._read_bytes - self._body_bytes
            if around > limit + self._body_bytes or self._barren_bytes > limit:
                self.refuse(refusals.FRAMING)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse a request that offers another protocol again, without the offer.

        The parser takes all that follows for the other protocol, bodies included. Java's client
        offers HTTP/2 with each first request.
        Source: RFC 9110, section 7.8: a server may ignore an upgrade.
        """
        line = (
            self.parser.get_method(),
            self.url,
            b"HTTP/" + self.parser.get_http_version().encode(),
        )
        kept = [
            (name, b"close" if name == b"connection" else value)
            for name, value in self.headers
            if name != b"upgrade" and (name != b"connection" or b"close" in value.lower())
        ]
        self.parser = httptools.HttpRequestParser(self)
        head = [b" ".join(line), *(b": ".join(header) for header in kept), b"", rest]
        self.data_received(b"\r\n".join(head))

    # The clocks

    def _check_clocks(self) -> None:
        """Close the connection where its client is late; else look again in time."""
        now = self.loop.time()
        if now - self._check_due > _LAG_S:
            # The process itself was held up: what came meanwhile is not read yet.
            self._check_after(_LAG_S)
            self._check_due = math.inf  # a second time in a row, it makes no difference
            return
        stall_left, client_left = self._stall_left(now), self._client_left(now)
        self._check_after(max(0.0, min(self._bounds.shortest_s, stall_left, client_left)))
        if stall_left <= 0:
            self._connections.note_refusal("STALLED_READER")
            self.transport.abort()
        elif client_left <= 0:
            self._give_up()

    def _check_after(self, delay_s: float) -> None:
        self._check_due = self.loop.time() + delay_s
        self._check = self.loop.call_later(delay_s, self._check_clocks)

    def _stall_left(self, now: float) -> float:
        """Return how long the client may go on without taking what waits for it."""
        # Elsewhere, what is written in the meantime would hide what the client took.
        if not (
            self.transport.get_write_buffer_size()
            and (self.flow.write_paused or self.transport.is_closing())
        ):
            self._unsent = None
            return math.inf
        unsent = untaken_bytes(self.transport)
        if self._unsent is None or unsent <= self._unsent[0] - _SLOWEST_READER:
            self._unsent = (unsent, now)
        return self._unsent[1] + self._bounds.stall_timeout_s - now

    def _client_left(self, now: float) -> float:
        """Return how long the client may take for what it has to send."""
        if self._is_deaf or self._phase is _IDLE or self.transport.is_closing():
            return math.inf
        if self._phase is _HEAD or self.cycle.response_complete:
            if self._is_answering_another:
                self._since = now
            return self._since + self._bounds.head_timeout_s - now
        enough = _SLOWEST_BODY * self._bounds.body_timeout_s
        is_over = now - self._since >= self._bounds.body_timeout_s
        if (
            self.flow.read_paused
            or self._is_answering_another
            or (is_over and self._body_bytes - self._body_bytes_before >= enough)
        ):
            self._since, self._body_bytes_before = now, self._body_bytes
        return self._since + self._bounds.body_timeout_s - now

    def _give_up(self) -> None:
        """Close the connection of a client that is late."""
        if self._phase is _BODY:
            self.refuse(refusals.SLOW_BODY)
        elif self._has_sent_anything:
            self.refuse(refusals.SLOW_HEAD)
        else:
            # Browsers open connections in advance: an error would be taken for the response.
            self.transport.close()

    # The end

    def refuse(self, refusal: Refusal) -> None:
        """Send the reason, and close; after the response that is under way, if there is one."""
        self._connections.note_refusal(refusal.code)
        self._is_deaf = True
        if self._is_answering_another:
            self._close_after_responses()
        elif self._phase is _BODY and self.cycle.response_started:
            self.transport.close() if self.cycle.response_complete else self.transport.abort()
        else:
            if self._phase is _BODY:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(refusal.response())
            self._linger()

    def make_room(self) -> None:
        """Close at once: a client that sent no request so far gives way to one that may."""
        self._is_deaf = True
        if self._has_sent_anything:
            self.transport.write(refusals.SLOW_HEAD.response())
        self.transport.close()

    def cut_off(self) -> None:
        """Close without a word."""
        self._is_deaf = True
        self.transport.abort()

    def _linger(self) -> None:
        """Send the end, and throw away what comes: closing would discard the response."""
        self._unset_keepalive_if_required()
        self.transport.write_eof()
        self.flow.resume_reading()
        if self._check is not None:
            self._check.cancel()
        self._check = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _close_after_responses(self) -> None:
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._answering
        if last is not None:
            last.keep_alive = False

    @property
    def _has_sent_anything(self) -> bool:
        return self._read_bytes > 0 or self._answering is not None

    @property
    def _is_answering_another(self) -> bool:
        """Whether a response is under way to a request before the one that is coming in."""
        answering = self._answering
        return (
            answering is not None
            and not answering.response_complete
            and not (self._phase is _BODY and answering is self.cycle)
        )
