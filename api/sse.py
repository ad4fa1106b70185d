"""Owns events on the wire of HTTP: frames, headers, keep-alive."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from api.dependencies import is_still_signed_in
from schema.events import StreamedEvent
from schema.ids import TurnId
from services.events.feed import Batch

_HEADERS: Final = {
    "Cache-Control": "no-cache, no-transform",
    # nginx and those that follow it hold streams back unless told not to.
    "X-Accel-Buffering": "no",
}

_LOOK_AGAIN_S: Final = 15.0
"""A turn may wait for days: who is signed out meanwhile is told nothing more."""


def event_stream(
    request: Request, turn_id: TurnId, batches: AsyncIterator[Batch]
) -> EventSourceResponse:
    """Return the response that streams a turn's events to who made the request.

    Source: WHATWG HTML, section 9.2, server-sent events.
    """
    headers = {**_HEADERS, "X-Turn-Id": str(turn_id)}
    frames = _frames(batches, signed_in=partial(is_still_signed_in, request))
    return EventSourceResponse(frames, headers=headers)


async def _frames(
    batches: AsyncIterator[Batch], *, signed_in: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield what is sent, until the end of the turn or of the client's sign-in."""
    # A comment at once makes proxies and clients see that the stream is open.
    yield KEEPALIVE_COMMENT
    looked = time.monotonic()
    async for batch in batches:
        if time.monotonic() - looked >= _LOOK_AGAIN_S:
            if not await signed_in():
                return
            looked = time.monotonic()
        yield b"".join(map(_frame, batch)) if batch else KEEPALIVE_COMMENT


def _frame(event: StreamedEvent) -> bytes:
    return format_sse_event(id=str(event.id), event=event.name, data_str=event.data)
