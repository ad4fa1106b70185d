"""Frames of an event stream: sent as they come, until the listener is signed out."""

import json
from collections.abc import AsyncGenerator

import pytest

from api import sse
from schema.events import EventId, EventName, StreamedEvent
from services.events.feed import Batch

_SILENCE: Batch = []


async def silences(count: int) -> AsyncGenerator[Batch, None]:
    for _ in range(count):
        yield _SILENCE


async def test_a_stream_ends_with_the_sign_in_of_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "_LOOK_AGAIN_S", 0.0)
    answers = iter([True, True, False])

    async def signed_in() -> bool:
        return next(answers)

    seen = [
        frame
        async for frame in sse._frames(silences(10), signed_in=signed_in, is_stopping=lambda: False)
    ]

    assert len(seen) == 3


async def test_the_listener_is_not_looked_up_for_every_event() -> None:
    async def signed_in() -> bool:
        raise AssertionError("looked up at once")

    seen = [
        frame
        async for frame in sse._frames(silences(10), signed_in=signed_in, is_stopping=lambda: False)
    ]

    assert len(seen) == 11


async def test_what_is_sent_at_once_is_bounded_also_within_an_event() -> None:
    texts = ["x" * 10, "\U0001f642" * 60_000, *["word " * 5_000] * 8, "\u2028", ""]
    batch = [
        StreamedEvent(EventId(5, number), EventName.DELTA, json.dumps(text, ensure_ascii=False))
        for number, text in enumerate(texts)
    ]

    async def batches() -> AsyncGenerator[Batch, None]:
        yield batch

    async def signed_in() -> bool:
        return True

    comment, *chunks = [
        chunk
        async for chunk in sse._frames(batches(), signed_in=signed_in, is_stopping=lambda: False)
    ]

    assert comment.startswith(b":")
    assert max(map(len, chunks)) <= 64 * 1024
    *frames, rest = b"".join(chunks).split(b"\n\n")
    assert rest == b""
    assert [frame.decode() for frame in frames] == [
        f"id: {event.id}\nevent: delta\ndata: {event.data}" for event in batch
    ]


async def test_the_end_of_a_stream_is_the_end_of_what_feeds_it() -> None:
    ended = []

    async def batches() -> AsyncGenerator[Batch, None]:
        try:
            while True:
                yield []
        finally:
            ended.append(True)

    async def signed_in() -> bool:
        return True

    frames = sse._frames(batches(), signed_in=signed_in, is_stopping=lambda: False)
    await anext(frames)
    await anext(frames)
    await frames.aclose()

    assert ended == [True]


async def test_the_stream_of_a_process_that_stops_ends_with_a_comment() -> None:
    async def signed_in() -> bool:
        return True

    frames = sse._frames(silences(1), signed_in=signed_in, is_stopping=lambda: True)

    assert [frame async for frame in frames][-1] == b": this server is stopping, reconnect\n\n"
