"""Derives a turn's events from its rows in the database."""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.chats import Message
from schema.errors import RETRYABLE, ErrorCode
from schema.events import (
    DONE_SEQUENCE,
    DeltaEvent,
    DoneEvent,
    ErrorEvent,
    EventData,
    EventId,
    StepEvent,
    StreamedEvent,
    ToolCallEvent,
    TurnEvent,
    UsageEvent,
)
from schema.ids import ChatId, MessageId, TurnId
from schema.tables import LedgerRow, MessageRow, StepRow, ToolCallRow, TurnRow
from schema.turns import ToolCallStatus, TurnStatus
from schema.usage import TokenUsage
from services.database import Database

PASSING: Final = EventId(0, 0)
"""The id of all events derived from a running turn: resuming after it sends everything again."""


_STATUS: Final = "SELECT status FROM turns WHERE id = $1"


class TurnGoneError(Exception):
    """The turn was deleted while its events were being read."""

    def __init__(self) -> None:
        super().__init__("The turn was deleted.")


class Snapshot(NamedTuple):
    """A turn's events derived from the database; the last is `done` if the turn has ended."""

    is_final: bool
    events: list[EventData]


class Snapshots:
    """Reads the events of whole turns. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has_ended(self, actor: Actor, turn_id: TurnId) -> bool:
        """Whether the turn has ended, which is all that a silent stream needs.

        Errors: TurnGoneError.
        """
        async with self._database.statements(actor) as connection:
            status = await connection.fetchval(_STATUS, turn_id)
        if status is None:
            raise TurnGoneError
        return TurnStatus(status).is_final

    async def read(self, actor: Actor, turn_id: TurnId) -> Snapshot:
        """Return the turn's events as far as they are stored.

        Errors: TurnGoneError if the turn is not found.
        """
        async with self._database.transaction(actor) as session:
            turn = await session.get(TurnRow, turn_id)
            if turn is None:
                raise TurnGoneError
            steps = await _rows_of(session, StepRow, turn_id, StepRow.step)
            charges = await _rows_of(
                session, LedgerRow, turn_id, LedgerRow.attempt, LedgerRow.tool_call_id
            )
            calls = await _rows_of(session, ToolCallRow, turn_id, ToolCallRow.position)
            answer = None
            if turn.assistant_message_id is not None:
                answer = await session.get(MessageRow, turn.assistant_message_id)
        status = TurnStatus(turn.status)
        events: list[EventData] = [turn_event(turn)]
        for step in steps:
            events += _step_events(step, charges=charges, calls=calls)
        if status.is_final:
            events += ending_events(turn, answer)
        return Snapshot(is_final=status.is_final, events=events)


class PolledEvents:
    """The events of a polled turn: after each poll only those that the client hasn't received."""

    def __init__(self) -> None:
        self._sent: dict[tuple[object, ...], EventData] = {}

    @property
    def has_begun(self) -> bool:
        """Whether any event was sent."""
        return bool(self._sent)

    def new_events(self, snapshot: Snapshot) -> list[StreamedEvent]:
        """Return the events that are new since the last call."""
        news = [event for event in map(self._news_in, snapshot.events) if event is not None]
        return [event_at(_passing_id(event), event) for event in news]

    def _news_in(self, event: EventData) -> EventData | None:
        key = _identity(event)
        before = self._sent.get(key)
        if before == event:
            return None
        self._sent[key] = event
        if isinstance(event, StepEvent):
            self._sent.pop((DeltaEvent.event_name, event.step), None)
        if isinstance(event, DeltaEvent) and isinstance(before, DeltaEvent):
            # The step's own event would have dropped `before`, had a new attempt begun.
            return event.model_copy(update={"text": event.text.removeprefix(before.text)})
        return event


def event_at(event_id: EventId, event: EventData) -> StreamedEvent:
    """Return the event as it goes to a client."""
    return StreamedEvent(event_id, event.event_name, event.to_json())


def passing_events(snapshot: Snapshot) -> list[StreamedEvent]:
    """Return the events of a running turn, which can't be resumed between two of them."""
    return [event_at(PASSING, event) for event in snapshot.events]


def final_events(snapshot: Snapshot, *, after: EventId | None) -> list[StreamedEvent]:
    """Return the events of a turn that has ended, those after `after` if it is one of them.

    An ended turn does not change, so its events are numbered, and the ids stay the same.
    """
    events = [
        event_at(EventId(0, number), event)
        for number, event in enumerate(snapshot.events[:-1], start=1)
    ]
    events.append(event_at(EventId(0, DONE_SEQUENCE), snapshot.events[-1]))
    if after is None or not after.is_snapshot:
        return events
    return [event for event in events if event.id > after]


def turn_event(turn: TurnRow) -> TurnEvent:
    """Return the event that says where the turn stands."""
    return TurnEvent(
        turn_id=TurnId(turn.id),
        chat_id=ChatId(turn.chat_id),
        status=TurnStatus(turn.status),
        user_message_id=MessageId(turn.user_message_id),
    )


def ending_events(turn: TurnRow, answer: MessageRow | None) -> list[EventData]:
    """Return the last events of a turn: `error` if it failed, and `done`."""
    events: list[EventData] = []
    if turn.error_code is not None:
        code = ErrorCode(turn.error_code)
        events.append(
            ErrorEvent(code=code, message=turn.error_message or "", retryable=code in RETRYABLE)
        )
    events.append(
        DoneEvent(
            status=TurnStatus(turn.status),
            assistant_message=None if answer is None else Message.model_validate(answer),
            usage=TokenUsage.model_validate(turn, from_attributes=True),
            cost_usd=turn.cost_usd,
        )
    )
    return events


def tool_call_event(call: ToolCallRow) -> ToolCallEvent:
    """Return the event that says where a tool call stands."""
    return ToolCallEvent(
        step=call.step,
        tool_call_id=call.tool_call_id,
        name=call.name,
        status=ToolCallStatus(call.status),
        input=call.input if call.edited_input is None else call.edited_input,
        output=call.output,
        expires_at=call.expires_at if call.status == ToolCallStatus.AWAITING_APPROVAL else None,
    )


def usage_event(charge: LedgerRow) -> UsageEvent:
    """Return the event that says what an attempt cost."""
    return UsageEvent(
        step=charge.step,
        attempt=charge.attempt,
        tool_call_id=charge.tool_call_id or None,
        model=charge.model,
        input_tokens=charge.input_tokens,
        output_tokens=charge.output_tokens,
        cache_read_tokens=charge.cache_read_tokens,
        cache_write_tokens=charge.cache_write_tokens,
        cost_usd=charge.cost_usd,
    )


_Row = TypeVar("_Row", StepRow, LedgerRow, ToolCallRow)


async def _rows_of(
    session: AsyncSession, table: type[_Row], turn_id: TurnId, *order: int | str
) -> Sequence[_Row]:
    query = select(table).where(col(table.turn_id) == turn_id).order_by(*map(col, order))
    return (await session.exec(query)).all()


def _step_events(
    step: StepRow, *, charges: Sequence[LedgerRow], calls: Sequence[ToolCallRow]
) -> list[EventData]:
    events: list[EventData] = [StepEvent(step=step.step, attempt=step.attempt, model=step.model)]
    if step.text:
        events.append(DeltaEvent(step=step.step, attempt=step.attempt, text=step.text))
    events += [
        usage_event(charge)
        for charge in charges
        if charge.step == step.step and charge.status != "open"
    ]
    events += [tool_call_event(call) for call in calls if call.step == step.step]
    return events


def _identity(event: EventData) -> tuple[object, ...]:
    """Return what an event is about: a later event about the same replaces it."""
    match event:
        case StepEvent() | DeltaEvent():
            return (event.event_name, event.step)
        case UsageEvent():
            return (event.event_name, event.step, event.attempt, event.tool_call_id)
        case ToolCallEvent():
            return (event.event_name, event.step, event.tool_call_id)
        case _:
            return (event.event_name,)


def _passing_id(event: EventData) -> EventId:
    return EventId(0, DONE_SEQUENCE) if isinstance(event, DoneEvent) else PASSING
