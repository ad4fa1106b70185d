"""Event streams on the wire: frames, headers, keep-alive."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, TypeAlias

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse
from starlette.types import Receive, Scope, Send

from api.access import is_still_signed_in
from api.dependencies import services_of
from schema.events import StreamedEvent, StreamedUserEvent
from schema.ids import TurnId

_HEADERS: Final = {
    "Cache-Control": "no-store, no-transform",
    # Keeps nginx from buffering the stream.
    "X-Accel-Buffering": "no",
}

_Events: TypeAlias = Sequence[StreamedEvent] | Sequence[StreamedUserEvent]

_LOOK_AGAIN_S: Final = 15.0
"""A stream may be open for days: a client that has signed out gets no more events."""


_CHUNK_BYTES: Final = 64 * 1024
"""The most that is handed to the server at once: it takes no more until the client has."""

_PIECE_CHARS: Final = 8 * 1024

_STOPPING: Final = b": this server is stopping, reconnect\n\n"


class _EventStream(EventSourceResponse):
    """A stream that closes its generators when it ends, on either side: they hold subscriptions."""

    def __init__(self, frames: AsyncGenerator[bytes, None], *, headers: dict[str, str]) -> None:
        super().__init__(frames, headers=headers)
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until its end, or until the client leaves."""
        async with aclosing(self._frames):
            await super().__call__(scope, receive, send)


def event_stream(
    request: Request, batches: AsyncGenerator[_Events, None], *, turn_id: TurnId | None = None
) -> EventSourceResponse:
    """Return the response that streams the events of a turn, or of a user.

    Source: WHATWG HTML, section 9.2, server-sent events.
    """
    headers = _HEADERS if turn_id is None else {**_HEADERS, "X-Turn-Id": str(turn_id)}
    feed = services_of(request).turns.feed
    frames = _frames(
        batches,
        signed_in=partial(is_still_signed_in, request),
        is_stopping=lambda: feed.is_closing,
    )
    return _EventStream(frames, headers=headers)


async def _frames(
    batches: AsyncGenerator[_Events, None],
    *,
    signed_in: Callable[[], Awaitable[bool]],
    is_stopping: Callable[[], bool],
) -> AsyncGenerator[bytes, None]:
    """Yield frames until the stream ends, the caller signs out, or this process is to stop."""
    # A comment at once lets proxies and clients see that the stream is open.
    yield KEEPALIVE_COMMENT
    looked = time.monotonic()
    async with aclosing(batches):
        async for batch in batches:
            if time.monotonic() - looked >= _LOOK_AGAIN_S:
                if not await signed_in():
                    return
                looked = time.monotonic()
            for chunk in _chunks(batch):
                yield chunk
    if is_stopping():
        # The response ends in full: a client resumes at another process without an error.
        yield _STOPPING


def _chunks(batch: _Events) -> Iterator[bytes]:
    """Yield the events as frames, cut where a chunk is full: also within a long event."""
    if not batch:
        yield KEEPALIVE_COMMENT
    chunk = bytearray()
    for piece in _pieces(batch):
        if len(chunk) + len(piece) > _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
        chunk += piece
    if chunk:
        yield bytes(chunk)


def _pieces(batch: _Events) -> Iterator[bytes]:
    for event in batch:
        yield f"id: {event.id}\nevent: {event.name}\ndata: ".encode()
        # JSON on a single line.
        for start in range(0, len(event.data), _PIECE_CHARS):
            yield event.data[start : start + _PIECE_CHARS].encode()
        yield b"\n\n"
