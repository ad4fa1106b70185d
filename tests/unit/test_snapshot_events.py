"""A turn's events derived from the database: poll after poll while it runs, and once it ended."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import pytest

from schema.chats import MessageOutline, MessageRole, MessageStatus
from schema.events import (
    DONE_SEQUENCE,
    DeltaEvent,
    DoneEvent,
    EventData,
    EventId,
    EventName,
    StepEvent,
    StreamedEvent,
    ToolCallEvent,
    TurnEvent,
    UsageEvent,
    delta_events,
)
from schema.ids import ChatId, MessageId, TurnId, new_id
from schema.tables import LedgerRow, ToolCallRow, TurnRow
from schema.turns import ToolCallStatus, TurnStatus
from schema.usage import TokenUsage
from services.events.snapshots import (
    PASSING,
    PolledEvents,
    Snapshot,
    batches,
    ending_events,
    event_at,
    final_events,
    tool_call_event,
    usage_event,
)

TURN = TurnEvent(
    turn_id=TurnId(new_id()),
    chat_id=ChatId(new_id()),
    status=TurnStatus.RUNNING,
    user_message_id=MessageId(new_id()),
)
DONE = DoneEvent(status=TurnStatus.COMPLETED, usage=TokenUsage(), cost_usd=Decimal(0))


def step(attempt: int, number: int = 1) -> StepEvent:
    return StepEvent(step=number, attempt=attempt, model="m")


def delta(text: str, attempt: int = 1, number: int = 1) -> DeltaEvent:
    return DeltaEvent(step=number, attempt=attempt, text=text)


def call(status: ToolCallStatus, output: str | None = None) -> ToolCallEvent:
    return ToolCallEvent(step=1, tool_call_id="c", name="t", status=status, output=output)


def usage(cost: str, *, attempt: int = 1, tool_call_id: str = "") -> UsageEvent:
    return usage_event(
        LedgerRow(
            id=new_id(),
            user_id=new_id(),
            turn_id=new_id(),
            step=1,
            attempt=attempt,
            kind="tool" if tool_call_id else "model",
            model="m",
            cost_usd=Decimal(cost),
            tool_call_id=tool_call_id,
        )
    )


EDITED: Final = {"a": "x" * 10_000}


def tool_call(values: dict[str, Any]) -> ToolCallRow:
    return ToolCallRow(
        turn_id=new_id(),
        step=1,
        tool_call_id="c",
        user_id=new_id(),
        position=0,
        name="t",
        **{"status": "running", "input": {}, **values},
    )


def turn_row() -> TurnRow:
    return TurnRow(
        id=new_id(),
        chat_id=new_id(),
        user_id=new_id(),
        user_message_id=new_id(),
        status="completed",
        model="m",
    )


def answer(content: str) -> MessageOutline:
    return MessageOutline(
        id=MessageId(new_id()),
        chat_id=ChatId(new_id()),
        turn_id=TurnId(new_id()),
        parent_id=None,
        role=MessageRole.ASSISTANT,
        content=content,
        status=MessageStatus.COMPLETED,
        created_at=datetime.now(UTC),
    )


def running(*events: EventData) -> list[EventData]:
    return [TURN, *events]


def ended(*events: EventData) -> list[EventData]:
    return [TURN, *events, DONE]


def sent(*snapshots: list[EventData]) -> list[list[StreamedEvent]]:
    polled = PolledEvents()
    return [list(polled.new_events(snapshot)) for snapshot in snapshots]


async def final(events: list[EventData], *, after: EventId | None = None) -> list[StreamedEvent]:
    """Return the events of an ended turn that was read in two parts."""

    async def parts() -> AsyncIterator[list[EventData]]:
        yield events[:2]
        yield events[2:]

    snapshot = Snapshot(is_final=True, parts=parts())
    return [event async for batch in final_events(snapshot, after=after) for event in batch]


def test_events_are_not_sent_twice() -> None:
    first, again = sent(running(step(1), delta("One")), running(step(1), delta("One")))

    assert [event.name for event in first] == ["turn", "step", "delta"]
    assert again == []


def test_only_new_text_is_published() -> None:
    _, second = sent(running(step(1), delta("One")), running(step(1), delta("One, two")))

    assert second == [event_at(PASSING, delta(", two"))]


def test_a_new_attempt_is_sent_from_its_beginning() -> None:
    _, second, third = sent(
        running(step(1), delta("Wrong")),
        running(step(2)),
        running(step(2), delta("Wrong again", attempt=2)),
    )

    assert second == [event_at(PASSING, step(2))]
    assert third == [event_at(PASSING, delta("Wrong again", attempt=2))]


def test_each_change_of_a_tool_call_is_sent_once() -> None:
    _, second, third = sent(
        running(call(ToolCallStatus.RUNNING)),
        running(call(ToolCallStatus.COMPLETED, "2")),
        running(call(ToolCallStatus.COMPLETED, "2")),
    )

    assert second == [event_at(PASSING, call(ToolCallStatus.COMPLETED, "2"))]
    assert third == []


def test_the_usage_of_a_tool_call_does_not_replace_that_of_its_step() -> None:
    first, second, third = sent(
        running(usage("0.1")),
        running(usage("0.1"), usage("0.2", tool_call_id="c"), usage("0.3", tool_call_id="d")),
        running(usage("0.1"), usage("0.2", tool_call_id="c"), usage("0.4", tool_call_id="d")),
    )

    assert first[-1] == event_at(PASSING, usage("0.1"))
    assert second == [
        event_at(PASSING, usage("0.2", tool_call_id="c")),
        event_at(PASSING, usage("0.3", tool_call_id="d")),
    ]
    assert third == [event_at(PASSING, usage("0.4", tool_call_id="d"))]


def test_only_the_usage_of_a_tool_call_names_one() -> None:
    assert "toolCallId" not in usage("0.1").to_json()
    assert '"toolCallId":"c"' in usage("0.1", tool_call_id="c").to_json()


def test_only_done_is_a_resume_point_among_transient_events() -> None:
    first, second = sent(running(step(1)), ended(step(1)))

    assert {event.id for event in first} == {PASSING}
    assert second[-1].id == EventId(0, DONE_SEQUENCE)
    assert second[-1].name is EventName.DONE


def test_polled_events_know_whether_any_were_sent() -> None:
    polled = PolledEvents()
    before = polled.has_begun
    list(polled.new_events(running()))

    assert (before, polled.has_begun) == (False, True)


async def test_an_ended_turn_has_ids_in_order_that_stay_the_same() -> None:
    snapshot = ended(step(1), delta("One"), call(ToolCallStatus.COMPLETED), step(1, number=2))

    events = await final(snapshot)

    assert events == await final(snapshot)
    assert all(one.id < other.id for one, other in pairwise(events))
    assert [event.id.is_done for event in events] == [False] * 5 + [True]
    assert all(event.id.is_snapshot for event in events)


async def test_an_ended_turn_can_be_resumed_after_each_of_its_events() -> None:
    snapshot = ended(step(1), delta("One"))
    events = await final(snapshot)

    for number, event in enumerate(events, start=1):
        assert await final(snapshot, after=event.id) == events[number:]


async def test_after_an_event_of_redis_an_ended_turn_is_sent_whole() -> None:
    snapshot = ended(step(1), delta("One"))

    assert await final(snapshot, after=EventId(1_700_000_000_000, 3)) == await final(snapshot)


def test_of_a_text_in_several_events_only_what_is_new_is_sent() -> None:
    whole = "".join(chr(0x4E00 + number % 5000) for number in range(50_000))

    first, second = sent(
        running(step(1), *delta_events(whole[:40_000], step=1, attempt=1)),
        running(step(1), *delta_events(whole, step=1, attempt=1)),
    )

    texts = [json.loads(event.data)["text"] for event in (*first[2:], *second)]
    assert "".join(texts) == whole
    assert max(map(len, texts)) <= 16 * 1024


def test_batches_are_bounded_but_for_a_single_long_event() -> None:
    events = [event_at(PASSING, delta("x" * size)) for size in (60_000, 60_000, 10, 200_000, 10)]

    assert list(batches(iter(events))) == [[events[0]], events[1:3], [events[3]], [events[4]]]


@pytest.mark.parametrize(
    ("size", "repeated", "told"),
    [(1_000, True, True), (10_000, True, False), (10_000, False, True), (40_000, False, False)],
)
def test_a_long_input_is_named_and_not_repeated(*, size: int, repeated: bool, told: bool) -> None:
    event = tool_call_event(tool_call({"input": {"a": "x" * size}}), repeated=repeated)

    assert (event.input is not None) is told
    assert event.input_bytes == (None if told else size + len('{"a": ""}'))


@pytest.mark.parametrize("values", [{"status": "awaiting_approval"}, {"edited_input": EDITED}])
def test_an_input_that_a_person_decides_about_is_told_again(values: dict[str, Any]) -> None:
    event = tool_call_event(tool_call({"input": EDITED, **values}))

    assert event.input == EDITED


def test_a_very_long_answer_is_not_repeated_in_done() -> None:
    *_, done = ending_events(turn_row(), answer("x" * (1024 * 1024 + 1)))
    *_, short = ending_events(turn_row(), answer("x" * (1024 * 1024)))

    assert isinstance(done, DoneEvent)
    assert isinstance(short, DoneEvent)
    assert (done.assistant_message is None, short.assistant_message is None) == (True, False)
