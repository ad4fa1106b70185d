"""The text of an attempt on its way to clients: joined, in order, resent after a loss."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from schema.events import DeltaEvent, EventData, StepEvent
from schema.ids import TurnId, new_id
from services.events.deltas import DeltaBuffer
from services.events.writer import Appended, EventWriter, NotAppended, OvertakenError

START = StepEvent(step=1, attempt=2, model="m")
FOREVER_S = 3600.0


class FakeWriter:
    """A stream in memory that can be away, forget everything, or belong to another attempt."""

    def __init__(self) -> None:
        self.stream: list[EventData] = []
        self.is_away = False
        self.is_overtaken = False
        self.insisted = False
        self.changed = asyncio.Event()
        self._forgotten = 0

    def forget(self) -> None:
        self._forgotten += 1
        self.stream.clear()

    async def append_attempt(
        self,
        turn_id: TurnId,
        events: Sequence[EventData],
        *,
        step: int,
        attempt: int,
        behind: str | None = None,
        insist: bool,
        has_text: bool = False,
    ) -> Appended | NotAppended:
        self.insisted = insist
        assert (step, attempt) == (START.step, START.attempt)
        if self.is_overtaken:
            self.changed.set()
            raise OvertakenError
        if self.is_away:
            return NotAppended.LOST
        if behind is not None and behind != self._newest():
            return NotAppended.UNKNOWN
        self.stream += events
        self.changed.set()
        return Appended(self._newest())

    def _newest(self) -> str:
        return f"{self._forgotten}-{len(self.stream)}"

    async def length(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.stream) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def writer() -> FakeWriter:
    return FakeWriter()


def attempt_text(writer: FakeWriter, *, interval_s: float = FOREVER_S) -> DeltaBuffer:
    return DeltaBuffer(
        cast("EventWriter", writer), turn_id=TurnId(new_id()), start=START, interval_s=interval_s
    )


def delta(text: str) -> DeltaEvent:
    return DeltaEvent(step=1, attempt=2, text=text)


async def test_an_attempt_begins_with_its_step(writer: FakeWriter) -> None:
    async with attempt_text(writer):
        await writer.length(1)
        assert writer.stream == [START]


async def test_the_first_piece_goes_out_at_once_and_the_next_ones_together(
    writer: FakeWriter,
) -> None:
    async with attempt_text(writer) as text:
        text.add("One")
        await writer.length(2)
        text.add(", two")
        text.add(", three")
    await text.flush()

    assert writer.stream == [START, delta("One"), delta(", two, three")]
    assert text.text == "One, two, three"


async def test_pieces_go_out_again_after_the_interval(writer: FakeWriter) -> None:
    async with attempt_text(writer, interval_s=0.001) as text:
        for number in range(5):
            text.add(str(number))
            await writer.length(number + 2)

    assert writer.stream == [START, *(delta(str(number)) for number in range(5))]


async def test_nothing_waiting_is_nothing_sent(writer: FakeWriter) -> None:
    async with attempt_text(writer) as text:
        await text.flush()
        await text.flush()

    assert writer.stream == [START]


async def test_a_lost_stream_is_published_again(writer: FakeWriter) -> None:
    async with attempt_text(writer) as text:
        text.add("One")
        await writer.length(2)
        writer.forget()
        text.add(", two")
        await text.flush()
        text.add(", three")
        await text.flush()

    assert writer.stream == [START, delta("One, two"), delta(", three")]


async def test_unpublished_text_is_published_once_redis_is_back(writer: FakeWriter) -> None:
    writer.is_away = True
    async with attempt_text(writer) as text:
        text.add("One")
        await text.flush()
        text.add(", two")
        writer.is_away = False
        await text.flush()

    assert writer.stream == [START, delta("One, two")]


async def test_a_superseded_attempt_learns_that_it_is(writer: FakeWriter) -> None:
    async with attempt_text(writer) as text:
        writer.is_overtaken = True
        with pytest.raises(OvertakenError):
            await add_until_sent(text)


async def add_until_sent(text: DeltaBuffer) -> None:
    """Add pieces until the attempt learns that it must stop."""
    async with asyncio.timeout(5):
        while True:
            text.add("more")
            await asyncio.sleep(0)


async def test_a_superseded_attempt_ends_with_its_first_text(writer: FakeWriter) -> None:
    writer.is_overtaken = True
    async with attempt_text(writer) as text:
        await writer.changed.wait()
        with pytest.raises(OvertakenError):
            text.add("too late")


async def test_the_end_of_an_attempt_is_tried_though_redis_has_just_failed() -> None:
    writer = FakeWriter()
    buffer = DeltaBuffer(
        cast("EventWriter", writer), turn_id=TurnId(new_id()), start=START, interval_s=FOREVER_S
    )
    buffer.add("All of it.")

    await buffer.flush(insist=True)

    assert writer.insisted
    assert len(writer.stream) == 2
