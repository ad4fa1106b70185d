"""Turns as clients and administrators read them: one turn, its messages, and all its details.

When an administrator reads what a user wrote, that is audited with what was read.
"""

from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, Text, Uuid, any_, bindparam, literal_column
from sqlalchemy import select as select_columns
from sqlalchemy.orm import aliased
from sqlmodel import SQLModel, col, select

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.chats import Message
from schema.ids import ChatId, TurnId, UserId, turn_workflow_id
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import (
    ChatRow,
    LedgerRow,
    MessageRow,
    StepRow,
    ToolCallRow,
    TurnContextRow,
    TurnRow,
)
from schema.turn_inspection import (
    InspectedCharge,
    InspectedContext,
    InspectedStep,
    InspectedToolCall,
    InspectedTurn,
    ListedTurn,
    OwnedTurn,
    OwnTurnFilter,
    TurnFilter,
    TurnSort,
)
from schema.turns import StepStatus, ToolCall, ToolCallDecision, ToolCallStatus, Turn
from schema.usage import TokenUsage
from services.audit import record, record_plainly
from services.database import Connection, Database
from services.database.queries import (
    CompiledQuery,
    Listing,
    Order,
    by_id,
    created_within,
    equals,
    ids_within,
)
from services.message_parts import MAX_INPUT_BYTES, SHOWN, message_from_row
from services.resources import Unreachable, why_unreachable
from services.turns.rows import owned_turn_from_row, tool_call_from_row, turn_from_row

_ONE_TURN: Final = by_id(TurnRow)
_TOOL_CALL: Final = CompiledQuery(
    select(ToolCallRow)
    .where(
        col(ToolCallRow.turn_id) == bindparam("turn_id", type_=Uuid),
        col(ToolCallRow.tool_call_id) == bindparam("tool_call_id"),
    )
    .order_by(col(ToolCallRow.step).desc())
    .limit(1)
)
_TURN_ID: Final[Any] = bindparam("turn_id", type_=Uuid)
_MESSAGES: Final[CompiledQuery[Any]] = CompiledQuery(
    SHOWN.join(
        TurnRow,
        col(MessageRow.id).in_([TurnRow.user_message_id, TurnRow.assistant_message_id]),
    )
    .where(col(TurnRow.id) == _TURN_ID)
    .order_by(col(MessageRow.role).desc())
)


_PENDING: Final = f"""
(SELECT jsonb_agg(jsonb_build_object(
    'tool_call_id', tool_call_id, 'step', step, 'name', name,
    'input', CASE WHEN input_bytes <= {MAX_INPUT_BYTES} THEN input END,
    'input_bytes', CASE WHEN input_bytes > {MAX_INPUT_BYTES} THEN input_bytes END,
    'created_at', created_at, 'expires_at', expires_at) ORDER BY step, position)
 FROM tool_calls CROSS JOIN LATERAL (SELECT octet_length(input::text) AS input_bytes) AS sized
 WHERE turns.status IN ('running', 'awaiting_approval') AND tool_calls.turn_id = turns.id
   AND tool_calls.status = 'awaiting_approval' AND decision IS NULL)
"""  # noqa: S608 -- a number
# Written out, so that Postgres sees that the index of unfinished turns has all of them.
_UNFINISHED: Final = literal_column(
    "turns.status IN ('queued', 'running', 'awaiting_approval')", Boolean
)
# Copies and imports of conversations were never asked here.
_WAS_ASKED: Final = col(TurnRow.origin) == "asked"
_OWN_TURNS: Final[Listing[Any]] = Listing(
    select_columns(TurnRow, literal_column(_PENDING).label("pending")).where(_WAS_ASKED),  # type: ignore[arg-type]  # of columns
    {
        **equals(col(TurnRow.user_id), col(TurnRow.chat_id)),
        "status": col(TurnRow.status) == any_(bindparam("status", type_=ARRAY(Text))),
        "unfinished": {True: _UNFINISHED},
    },
)
_CHAT: Final = by_id(ChatRow)


class TurnReading:
    """Shows turns. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, actor: Actor, turn_id: TurnId) -> Result[Turn, Unreachable]:
        """Return one turn."""
        async with self._database.statements(actor) as connection:
            row = await _ONE_TURN.first(connection, id=turn_id)
        if row is None:
            return Err(await why_unreachable(self._database, TurnRow, turn_id))
        return Ok(turn_from_row(row))

    async def get_tool_call(
        self, actor: Actor, turn_id: TurnId, tool_call_id: str
    ) -> Result[ToolCall, Unreachable]:
        """Return one tool call of a turn; the latest, where a model used its id again."""
        async with self._database.statements(actor) as connection:
            turn = await _ONE_TURN.first(connection, id=turn_id)
            row = await _TOOL_CALL.first(connection, turn_id=turn_id, tool_call_id=tool_call_id)
        if turn is None:
            return Err(await why_unreachable(self._database, TurnRow, turn_id))
        return Err(Unreachable.MISSING) if row is None else Ok(tool_call_from_row(row))

    async def list_turns(
        self, actor: Actor, chosen: OwnTurnFilter, page: PageRequest, *, sort: TurnSort
    ) -> Page[ListedTurn]:
        """Return the actor's turns that match the filter, with the tool calls that await approval.

        Errors: InvalidCursorError.
        """
        async with self._database.statements(actor) as connection:
            return await _listed(connection, chosen, page, sort=sort, user_id=actor.user_id)

    async def list_turns_of_chat(
        self,
        actor: Actor,
        chat_id: ChatId,
        chosen: OwnTurnFilter,
        page: PageRequest,
        *,
        sort: TurnSort,
    ) -> Result[Page[ListedTurn], Unreachable]:
        """Return the turns of a chat that match the filter, on all its branches.

        Errors: InvalidCursorError.
        """
        async with self._database.statements(actor) as connection:
            if await _CHAT.first(connection, id=chat_id) is not None:
                return Ok(await _listed(connection, chosen, page, sort=sort, chat_id=chat_id))
        return Err(await why_unreachable(self._database, ChatRow, chat_id))

    async def list_messages(self, actor: Actor, turn_id: TurnId) -> list[Message]:
        """Return the messages of a turn: the question, and the answer once there is one."""
        async with self._database.statements(actor) as connection:
            rows = await _MESSAGES.all(connection, turn_id=turn_id)
        return [message_from_row(row) for row in rows]


R = TypeVar("R", bound=SQLModel)

_ORDERS: Final = {
    TurnSort.CREATED: Order("createdAt", (col(TurnRow.id),)),
    TurnSort.CREATED_LAST: Order("-createdAt", (col(TurnRow.id),), descending=True),
}


async def _listed(
    connection: Connection,
    chosen: OwnTurnFilter,
    page: PageRequest,
    *,
    sort: TurnSort,
    **of: UUID,
) -> Page[ListedTurn]:
    is_unfinished = bool(chosen.status) and not any(status.is_final for status in chosen.status)
    wanted = {**of, "status": chosen.status or None, "unfinished": is_unfinished or None}
    rows = await _OWN_TURNS.read(connection, page, _ORDERS[sort], wanted)
    return rows.map(
        lambda row: ListedTurn(**vars(turn_from_row(row)), pending_tool_calls=row.pending or [])
    )


_TURNS: Final = Listing(
    select(TurnRow).where(_WAS_ASKED),
    {
        **equals(
            *(col(TurnRow.user_id), col(TurnRow.chat_id), col(TurnRow.model)),
            *(col(TurnRow.status), col(TurnRow.error_code)),
        ),
        **created_within(TurnRow),
    },
)

_LATER: Final[Any] = aliased(TurnRow)
_SUCCESSOR: Final = (
    select(_LATER.id).where(_LATER.regenerates == col(TurnRow.id)).order_by(_LATER.id.desc())
).limit(literal_column("1"))
_WITH_CONTEXT: Final[Any] = select_columns(
    TurnRow,
    _SUCCESSOR.scalar_subquery().label("superseded_by"),
    col(TurnContextRow.layers),
    col(TurnContextRow.sources),
).outerjoin(TurnContextRow, col(TurnContextRow.turn_id) == col(TurnRow.id))
_TURN: Final = CompiledQuery(_WITH_CONTEXT.where(col(TurnRow.id) == _TURN_ID))


def _belonging(table: type[R], *order: str) -> CompiledQuery[R]:
    """Return the query for the rows of a table, in an order of columns."""
    columns: Any = table
    query = select(table).where(col(columns.turn_id) == _TURN_ID)
    return CompiledQuery(query.order_by(*(getattr(columns, name) for name in order)))


_STEPS: Final = _belonging(StepRow, "step")
_TOOL_CALLS: Final = _belonging(ToolCallRow, "step", "position")
_CHARGES: Final = _belonging(LedgerRow, "id")


class TurnInspection:
    """Shows turns to administrators. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_turns(
        self, actor: Actor, chosen: TurnFilter, page: PageRequest, *, sort: TurnSort
    ) -> Page[OwnedTurn]:
        """Return the turns of all users that match the filter.

        Errors: InvalidCursorError.
        """
        wanted = {**vars(chosen), **ids_within(chosen)}
        async with self._database.statements(actor) as connection:
            rows = await _TURNS.read(connection, page, _ORDERS[sort], wanted)
        return rows.map(owned_turn_from_row)

    async def inspect(self, actor: Actor, turn_id: TurnId) -> Result[InspectedTurn, Unreachable]:
        """Return everything about a turn, and record that it was read."""
        async with self._database.statements(actor) as connection:
            row = await _TURN.first(connection, turn_id=turn_id)
            if row is None:
                return Err(Unreachable.MISSING)
            await record_plainly(
                connection,
                actor,
                AuditAction.TURN_READ,
                (ResourceType.TURN, turn_id),
                subject_id=row.user_id,
            )
            return Ok(await _inspected(connection, row))

    async def owner_of(self, actor: Actor, turn_id: TurnId) -> Result[UserId, Unreachable]:
        """Return the turn's owner."""
        async with self._database.transaction(actor) as session:
            row = await session.get(TurnRow, turn_id)
        return Err(Unreachable.MISSING) if row is None else Ok(UserId(row.user_id))

    async def note(
        self, actor: Actor, action: AuditAction, turn_id: TurnId, *, owner: UserId
    ) -> None:
        """Record what an administrator did to a user's turn."""
        async with self._database.transaction(actor) as session:
            record(session, actor, action, (ResourceType.TURN, turn_id), subject_id=owner)


async def _inspected(connection: Connection, row: Any) -> InspectedTurn:  # noqa: ANN401 -- of _TURN
    turn_id = TurnId(row.id)
    its = {"turn_id": turn_id}
    context = None
    if row.layers is not None:
        context = InspectedContext(layers=row.layers, sources=row.sources)
    return InspectedTurn(
        turn=owned_turn_from_row(row),
        workflow_id=turn_workflow_id(turn_id),
        request_id=row.request_id,
        prompt=row.prompt,
        context=context,
        messages=[message_from_row(row) for row in await _MESSAGES.all(connection, **its)],
        steps=[_step(row) for row in await _STEPS.all(connection, **its)],
        tool_calls=[_tool_call(row) for row in await _TOOL_CALLS.all(connection, **its)],
        charges=[_charge(row) for row in await _CHARGES.all(connection, **its)],
        superseded_by=row.superseded_by,
    )


def _step(row: StepRow) -> InspectedStep:
    return InspectedStep(
        step=row.step,
        attempt=row.attempt,
        model=row.model,
        status=StepStatus(row.status),
        text=row.text,
        stop_reason=row.stop_reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _tool_call(row: ToolCallRow) -> InspectedToolCall:
    return InspectedToolCall(
        step=row.step,
        tool_call_id=row.tool_call_id,
        name=row.name,
        input=row.input,
        edited_input=row.edited_input,
        status=ToolCallStatus(row.status),
        output=row.output,
        attempts=row.attempts,
        decision=None if row.decision is None else ToolCallDecision(row.decision),
        decision_reason=row.decision_reason,
        expires_at=row.expires_at,
        cost_usd=row.cost_usd,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _charge(row: LedgerRow) -> InspectedCharge:
    return InspectedCharge(
        step=row.step,
        attempt=row.attempt,
        kind=row.kind,
        tool_call_id=row.tool_call_id or None,
        model=row.model,
        status=row.status,
        estimated=row.estimated,
        usage=TokenUsage.model_validate(row, from_attributes=True),
        cost_usd=row.cost_usd,
        created_at=row.created_at,
        settled_at=row.settled_at,
    )
