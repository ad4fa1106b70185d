"""A turn's events derived from its rows in the database, step by step.

Readers wait in turn for a few connections, and hold one step of a turn at a time: neither a crowd
nor a long turn takes more of the process than that.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, Uuid, bindparam
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from schema.actors import SERVICE, Actor, ActorType
from schema.chats import MessageOutline
from schema.errors import RETRYABLE, ErrorCode
from schema.events import (
    DONE_SEQUENCE,
    DeltaEvent,
    DoneEvent,
    ErrorEvent,
    EventData,
    EventId,
    EventName,
    MessageJoinedEvent,
    StepEvent,
    StreamedEvent,
    ThinkingEvent,
    ToolCallEvent,
    TurnEvent,
    UsageEvent,
    end_of_joined,
    step_events,
)
from schema.ids import ChatId, MessageId, TurnId, UserId
from schema.result import Err, Ok, Result
from schema.tables import LedgerRow, MessageRow, StepRow, ToolCallRow, TurnRow
from schema.turns import ToolCallStatus, TurnStatus
from schema.usage import TokenUsage
from services.database import Connection, Database, GatheredReads
from services.database.queries import CompiledQuery, by_id
from services.message_parts import OUTLINED, outline_from_row
from services.resources import Unreachable

PASSING: Final = EventId(0, 0)
"""The id of all events derived from a running turn: resuming after it sends everything again."""

BATCH_CHARS: Final = 64 * 1024
"""About how much of a turn is prepared for a client at a time."""

_READS_AT_A_TIME: Final = 4
_MAX_INPUT_BYTES: Final = 32 * 1024
_MAX_REPEATED_INPUT_BYTES: Final = 2 * 1024
_MAX_ANSWER_CHARS: Final = 1024 * 1024

# The last two say whether a running turn has changed: its steps, and its tool calls.
_FACTS: Final = """
SELECT id, user_id, status,
    (SELECT max(updated_at) FROM steps WHERE turn_id = turns.id) AS stepped_at,
    (SELECT max(greatest(created_at, expires_at, decided_at, started_at, finished_at))
     FROM tool_calls WHERE turn_id = turns.id) AS called_at
FROM turns WHERE id = ANY($1::uuid[])
"""
_TURN_ID: Final[Any] = bindparam("turn_id", type_=Uuid)
_STEP: Final[Any] = bindparam("step", type_=Integer)
_TURN: Final = by_id(TurnRow)
_STEPS: Final = "SELECT step FROM steps WHERE turn_id = $1 ORDER BY step"
_ONE_STEP: Final[CompiledQuery[Any]] = CompiledQuery(
    select_columns(
        col(StepRow.attempt), col(StepRow.model), col(StepRow.text), col(StepRow.thinking)
    ).where(  # type: ignore[arg-type]  # of columns
        col(StepRow.turn_id) == _TURN_ID, col(StepRow.step) == _STEP
    )
)
_CHARGES: Final = CompiledQuery(
    select(LedgerRow)
    .where(
        col(LedgerRow.turn_id) == _TURN_ID,
        col(LedgerRow.step) == _STEP,
        col(LedgerRow.status) != "open",
    )
    .order_by(col(LedgerRow.attempt), col(LedgerRow.tool_call_id))
)
_CALLS: Final = CompiledQuery(
    select(ToolCallRow)
    .where(col(ToolCallRow.turn_id) == _TURN_ID, col(ToolCallRow.step) == _STEP)
    .order_by(col(ToolCallRow.position))
)
_JOINED: Final = """
SELECT user_message_id AS message_id, id AS turn_id FROM turns
WHERE steers = $1 AND joined_step = $2 ORDER BY id
"""
_ANSWER: Final[CompiledQuery[Any]] = CompiledQuery(
    OUTLINED.where(col(MessageRow.id) == bindparam("id", type_=Uuid))
)


class TurnGoneError(Exception):
    """The turn was deleted while its events were being read."""

    def __init__(self) -> None:
        super().__init__("The turn was deleted.")


class TurnFacts(NamedTuple):
    """Whose a turn is and how far it is; `changed_at` is when its steps and tool calls changed."""

    user_id: UserId
    status: TurnStatus
    changed_at: tuple[datetime | None, datetime | None]


class Snapshot(NamedTuple):
    """A turn as it was read, whose events are read as they are taken.

    The last one is `done` if the turn had ended. Errors: TurnGoneError from `parts`.
    """

    is_final: bool
    parts: AsyncIterator[list[EventData]]


class Snapshots:
    """Reads the events of whole turns. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._facts = GatheredReads(self._read_facts)
        self._reads = asyncio.Semaphore(_READS_AT_A_TIME)

    async def find(self, actor: Actor, turn_id: TurnId) -> Result[TurnFacts, Unreachable]:
        """Return the facts of a turn that the actor may read."""
        facts = await self._facts.get(turn_id)
        if facts is None:
            return Err(Unreachable.MISSING)
        # The policies of the database say the same; this spares each stream a transaction.
        if facts.user_id != actor.user_id and actor.type is not ActorType.ADMIN:
            return Err(Unreachable.FORBIDDEN)
        return Ok(facts)

    async def facts(self, turn_id: TurnId) -> TurnFacts:
        """Return the facts of a turn whose reader is known already. Errors: TurnGoneError."""
        facts = await self._facts.get(turn_id)
        if facts is None:
            raise TurnGoneError
        return facts

    async def read(self, actor: Actor, turn_id: TurnId) -> Snapshot:
        """Return the turn's events as far as they are stored.

        Errors: TurnGoneError if the turn is not found.
        """
        async with self._reads, self._database.statements(actor) as connection:
            turn = await _TURN.first(connection, id=turn_id)
            steps = await connection.fetch(_STEPS, turn_id)
        if turn is None:
            raise TurnGoneError
        is_final = TurnStatus(turn.status).is_final
        parts = self._parts(actor, turn, [row["step"] for row in steps])
        return Snapshot(is_final=is_final, parts=parts)

    async def _parts(
        self, actor: Actor, turn: TurnRow, steps: Iterable[int]
    ) -> AsyncGenerator[list[EventData], None]:
        yield [turn_event(turn)]
        for step in steps:
            async with self._reads, self._database.statements(actor) as connection:
                events = await _step_events(connection, turn, step)
            yield events
        if TurnStatus(turn.status).is_final:
            async with self._reads, self._database.statements(actor) as connection:
                row = await _ANSWER.first(connection, id=turn.assistant_message_id)
            yield ending_events(turn, None if row is None else outline_from_row(row))

    async def _read_facts(self, turn_ids: Collection[TurnId]) -> dict[TurnId, TurnFacts]:
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(_FACTS, turn_ids)
        return {
            TurnId(row["id"]): TurnFacts(
                UserId(row["user_id"]),
                TurnStatus(row["status"]),
                (row["stepped_at"], row["called_at"]),
            )
            for row in rows
        }


class PolledEvents:
    """The events of a polled turn: after each poll only those that the client hasn't received."""

    def __init__(self) -> None:
        self._sent: dict[tuple[object, ...], int] = {}
        self._sent_chars: Counter[tuple[str, int]] = Counter()

    @property
    def has_begun(self) -> bool:
        """Whether any event was sent."""
        return bool(self._sent)

    def new_events(self, part: Iterable[EventData]) -> Iterator[StreamedEvent]:
        """Yield the events of a part of a snapshot that the client hasn't received."""
        seen_chars: Counter[tuple[str, int]] = Counter()
        for event in part:
            if isinstance(event, DeltaEvent | ThinkingEvent):
                key = (event.event_name, event.step)
                new = event.text[max(self._sent_chars[key] - seen_chars[key], 0) :]
                seen_chars[key] += len(event.text)
                self._sent_chars[key] = max(self._sent_chars[key], seen_chars[key])
                if new:
                    yield event_at(PASSING, event.model_copy(update={"text": new}))
            elif self._is_news(event):
                if isinstance(event, StepEvent):
                    del self._sent_chars[EventName.DELTA, event.step]
                    del self._sent_chars[EventName.THINKING, event.step]
                yield event_at(_passing_id(event), event)

    def _is_news(self, event: EventData) -> bool:
        key, content = _identity(event), hash(event.to_json())
        if self._sent.get(key) == content:
            return False
        self._sent[key] = content
        return True


def event_at(event_id: EventId, event: EventData) -> StreamedEvent:
    """Return the event as it goes to a client."""
    return StreamedEvent(event_id, event.event_name, event.to_json())


async def passing_events(snapshot: Snapshot) -> AsyncGenerator[list[StreamedEvent], None]:
    """Yield the events of a running turn, which can't be resumed between two of them."""
    async for part in snapshot.parts:
        for batch in batches(event_at(PASSING, event) for event in part):
            yield batch


async def final_events(
    snapshot: Snapshot, *, after: EventId | None
) -> AsyncGenerator[list[StreamedEvent], None]:
    """Yield the events of a turn that has ended, those after `after` if it is one of them.

    An ended turn does not change, so its events are numbered, and the ids stay the same.
    """
    sent = after if after is not None and after.is_snapshot else PASSING
    first = 1
    async for part in snapshot.parts:
        numbered = [(_final_id(event, number), event) for number, event in enumerate(part, first)]
        first += len(part)
        new = (event_at(event_id, event) for event_id, event in numbered if event_id > sent)
        for batch in batches(new):
            yield batch


def batches(events: Iterable[StreamedEvent]) -> Iterator[list[StreamedEvent]]:
    """Yield the events in lists of about `BATCH_CHARS`."""
    batch: list[StreamedEvent] = []
    chars = 0
    for event in events:
        if batch and chars + len(event.data) > BATCH_CHARS:
            yield batch
            batch, chars = [], 0
        batch.append(event)
        chars += len(event.data)
    if batch:
        yield batch


def turn_event(turn: TurnRow) -> TurnEvent:
    """Return the event that says where the turn stands."""
    return TurnEvent(
        turn_id=TurnId(turn.id),
        chat_id=ChatId(turn.chat_id),
        status=TurnStatus(turn.status),
        user_message_id=MessageId(turn.user_message_id),
        steers=TurnId(turn.steers) if turn.steers and turn.status == TurnStatus.QUEUED else None,
    )


def ending_events(turn: TurnRow, answer: MessageOutline | None) -> list[EventData]:
    """Return the last events of a turn: `error` if it failed, and `done`.

    A very long answer is not repeated in `done`.
    """
    if turn.joined_step is not None and turn.steers is not None:
        return [end_of_joined(TurnId(turn.steers))]
    events: list[EventData] = []
    if turn.error_code is not None:
        code = ErrorCode(turn.error_code)
        events.append(
            ErrorEvent(code=code, message=turn.error_message or "", retryable=code in RETRYABLE)
        )
    is_short = answer is not None and len(answer.content) <= _MAX_ANSWER_CHARS
    events.append(
        DoneEvent(
            status=TurnStatus(turn.status),
            assistant_message=answer if is_short else None,
            usage=TokenUsage.model_validate(turn, from_attributes=True),
            cost_usd=turn.cost_usd,
        )
    )
    return events


def tool_call_event(call: ToolCallRow, *, repeated: bool = True) -> ToolCallEvent:
    """Return the event that says where a tool call stands.

    A long input is left out of an event that is `repeated`: an earlier one had it, unless a
    person has to decide about it or has changed it. A very long one is in no event.
    """
    status = ToolCallStatus(call.status)
    awaits = status is ToolCallStatus.AWAITING_APPROVAL
    may_be_long = awaits or not repeated or call.edited_input is not None
    return ToolCallEvent(
        step=call.step,
        tool_call_id=call.tool_call_id,
        name=call.name,
        status=status,
        **event_input(
            call.input if call.edited_input is None else call.edited_input,
            max_bytes=_MAX_INPUT_BYTES if may_be_long else _MAX_REPEATED_INPUT_BYTES,
        ),
        output=call.output,
        expires_at=call.expires_at if awaits else None,
    )


def event_input(content: dict[str, Any], *, max_bytes: int = _MAX_INPUT_BYTES) -> dict[str, Any]:
    """Return the fields of an event for a tool call's input: itself, or how long it is."""
    size = len(json.dumps(content, ensure_ascii=False).encode())
    return {"input": content} if size <= max_bytes else {"input_bytes": size}


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


async def joined_events(
    connection: Connection, turn_id: UUID, step: int
) -> list[MessageJoinedEvent]:
    """Return the events of the messages that joined a turn before a step."""
    joined = await connection.fetch(_JOINED, turn_id, step)
    return [MessageJoinedEvent(step=step, **message) for message in joined]


async def _step_events(connection: Connection, turn: TurnRow, number: int) -> list[EventData]:
    key = {"turn_id": turn.id, "step": number}
    step = await _ONE_STEP.first(connection, **key)
    if step is None:
        return []
    charges = await _CHARGES.all(connection, **key)
    calls = await _CALLS.all(connection, **key)
    return [
        *await joined_events(connection, turn.id, number),
        *step_events(
            number, attempt=step.attempt, model=step.model, thinking=step.thinking, text=step.text
        ),
        *(usage_event(charge) for charge in charges),
        *(tool_call_event(call, repeated=False) for call in calls),
    ]


def _final_id(event: EventData, number: int) -> EventId:
    return EventId(0, DONE_SEQUENCE if isinstance(event, DoneEvent) else number)


def _identity(event: EventData) -> tuple[object, ...]:
    """Return what an event is about: a later event about the same replaces it."""
    match event:
        case StepEvent():
            return (event.event_name, event.step)
        case MessageJoinedEvent():
            return (event.event_name, event.message_id)
        case UsageEvent():
            return (event.event_name, event.step, event.attempt, event.tool_call_id)
        case ToolCallEvent():
            return (event.event_name, event.step, event.tool_call_id)
        case _:
            return (event.event_name,)


def _passing_id(event: EventData) -> EventId:
    return EventId(0, DONE_SEQUENCE) if isinstance(event, DoneEvent) else PASSING
