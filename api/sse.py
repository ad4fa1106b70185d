"""Owns events on the wire of HTTP: frames, headers, keep-alive."""

from collections.abc import AsyncIterator
from typing import Final

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from schema.events import StreamedEvent
from schema.ids import TurnId
from services.events.feed import Batch

_HEADERS: Final = {
    "Cache-Control": "no-cache, no-transform",
    # nginx and those that follow it hold streams back unless told not to.
    "X-Accel-Buffering": "no",
}


def event_stream(turn_id: TurnId, batches: AsyncIterator[Batch]) -> EventSourceResponse:
    """Return the response that streams a turn's events to its client.

    Source: WHATWG HTML, section 9.2, server-sent events.
    """
    headers = {**_HEADERS, "X-Turn-Id": str(turn_id)}
    return EventSourceResponse(_frames(batches), headers=headers)


async def _frames(batches: AsyncIterator[Batch]) -> AsyncIterator[bytes]:
    # A comment at once makes proxies and clients see that the stream is open.
    yield KEEPALIVE_COMMENT
    async for batch in batches:
        yield b"".join(map(_frame, batch)) if batch else KEEPALIVE_COMMENT


def _frame(event: StreamedEvent) -> bytes:
    return format_sse_event(id=str(event.id), event=event.name, data_str=event.data)
