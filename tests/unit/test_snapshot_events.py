"""A turn's events derived from the database: poll after poll while it runs, and once it ended."""

from decimal import Decimal
from itertools import pairwise

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
)
from schema.ids import ChatId, MessageId, TurnId, new_id
from schema.tables import LedgerRow
from schema.turns import ToolCallStatus, TurnStatus
from schema.usage import TokenUsage
from services.events.snapshots import (
    PASSING,
    PolledEvents,
    Snapshot,
    event_at,
    final_events,
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


def running(*events: EventData) -> Snapshot:
    return Snapshot(is_final=False, events=[TURN, *events])


def ended(*events: EventData) -> Snapshot:
    return Snapshot(is_final=True, events=[TURN, *events, DONE])


def sent(*snapshots: Snapshot) -> list[list[StreamedEvent]]:
    polled = PolledEvents()
    return [polled.new_events(snapshot) for snapshot in snapshots]


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
    polled.new_events(running())

    assert (before, polled.has_begun) == (False, True)


def test_an_ended_turn_has_ids_in_order_that_stay_the_same() -> None:
    snapshot = ended(step(1), delta("One"), call(ToolCallStatus.COMPLETED), step(1, number=2))

    events = final_events(snapshot, after=None)

    assert events == final_events(snapshot, after=None)
    assert all(one.id < other.id for one, other in pairwise(events))
    assert [event.id.is_done for event in events] == [False] * 5 + [True]
    assert all(event.id.is_snapshot for event in events)


def test_an_ended_turn_can_be_resumed_after_each_of_its_events() -> None:
    snapshot = ended(step(1), delta("One"))
    events = final_events(snapshot, after=None)

    for number, event in enumerate(events, start=1):
        assert final_events(snapshot, after=event.id) == events[number:]


def test_after_an_event_of_redis_an_ended_turn_is_sent_whole() -> None:
    snapshot = ended(step(1), delta("One"))

    assert final_events(snapshot, after=EventId(1_700_000_000_000, 3)) == final_events(
        snapshot, after=None
    )
