"""Frames of an event stream: sent as they come, until the listener is signed out."""

from collections.abc import AsyncIterator

import pytest

from api import sse
from services.events.feed import Batch

_SILENCE: Batch = []


async def silences(count: int) -> AsyncIterator[Batch]:
    for _ in range(count):
        yield _SILENCE


async def test_a_stream_ends_with_the_sign_in_of_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "_LOOK_AGAIN_S", 0.0)
    answers = iter([True, True, False])

    async def signed_in() -> bool:
        return next(answers)

    seen = [frame async for frame in sse._frames(silences(10), signed_in=signed_in)]

    assert len(seen) == 3


async def test_the_listener_is_not_looked_up_for_every_event() -> None:
    async def signed_in() -> bool:
        raise AssertionError("looked up at once")

    seen = [frame async for frame in sse._frames(silences(10), signed_in=signed_in)]

    assert len(seen) == 11
