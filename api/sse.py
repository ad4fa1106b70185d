"""Event streams on the wire: frames, headers, keep-alive."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from api.access import is_still_signed_in
from schema.events import StreamedEvent
from schema.ids import TurnId
from services.events.feed import Batch

_HEADERS: Final = {
    "Cache-Control": "no-cache, no-transform",
    # Keeps nginx from buffering the stream.
    "X-Accel-Buffering": "no",
}

_LOOK_AGAIN_S: Final = 15.0
"""A turn may wait for days: a client that has signed out gets no more events."""


def event_stream(
    request: Request, turn_id: TurnId, batches: AsyncIterator[Batch]
) -> EventSourceResponse:
    """Return the response that streams a turn's events.

    Source: WHATWG HTML, section 9.2, server-sent events.
    """
    headers = {**_HEADERS, "X-Turn-Id": str(turn_id)}
    frames = _frames(batches, signed_in=partial(is_still_signed_in, request))
    return EventSourceResponse(frames, headers=headers)


async def _frames(
    batches: AsyncIterator[Batch], *, signed_in: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield frames until the turn ends, or the caller signs out."""
    # A comment at once lets proxies and clients see that the stream is open.
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
