"""Tool calls that await approval: asking the user, and the user's decision.

A decision is stored before it is signalled to the workflow; the sweep signals again those that did
not arrive.
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final

from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor, acting_user
from schema.audit import AuditAction, ResourceType
from schema.contexts import PromptLayers
from schema.errors import TOOL_INPUT_INVALID
from schema.ids import TurnId
from schema.result import Err, Ok, Result
from schema.tables import ChatToolApprovalRow, ToolCallRow, TurnContextRow, TurnRow
from schema.tables.columns import utc_now
from schema.turns import (
    ApprovalDecision,
    AskApprovalOutput,
    DecidedToolCall,
    DecidedToolCallReference,
    DecideToolCallRequest,
    RunToolInput,
    ToolCallDecision,
    ToolCallKey,
    ToolCallStatus,
    TurnStatus,
)
from services.audit import record
from services.database import Database
from services.events.snapshots import tool_call_event
from services.events.writer import EventWriter, turn_news
from services.resources import InvalidField, Unreachable, why_unreachable
from services.tools.validation import InputValidation
from services.turns import tool_call_statements as sql
from services.turns.rows import tool_call_row

_BATCH: Final = 500
_DECISIONS: Final = {
    ApprovalDecision.APPROVE: ToolCallDecision.APPROVED,
    ApprovalDecision.DENY: ToolCallDecision.DENIED,
}


class ApprovalRefusal(StrEnum):
    """Why a decision about a call is refused."""

    NOT_AWAITED = "not_awaited"
    DECIDED = "decided"


class ToolApprovals:
    """Asks for approvals and stores decisions. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, events: EventWriter, *, expiry: timedelta) -> None:
        self._database = database
        self._events = events
        self._expiry_s = expiry.total_seconds()
        self._validation = InputValidation()

    async def ask(self, call: RunToolInput) -> AskApprovalOutput:
        """Mark a call as awaiting approval, and return for how long; do nothing if it is decided.

        Idempotency: asked again, the call waits no longer than it would have.
        """
        key = (call.turn.turn_id, call.step, call.tool_call_id)
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            row = await connection.fetchrow(sql.ASK, *key, self._expiry_s)
            if row is None:
                return AskApprovalOutput()
            await connection.execute(sql.AWAIT, call.turn.turn_id)
        news = turn_news(call.turn, TurnStatus.AWAITING_APPROVAL)
        asked = [tool_call_event(tool_call_row(row))]
        await self._events.append(call.turn.turn_id, asked, news=news)
        return AskApprovalOutput(within_s=max(row["within_s"], 0.0))

    async def decide(
        self, actor: Actor, turn_id: TurnId, tool_call_id: str, request: DecideToolCallRequest
    ) -> Result[DecidedToolCall, Unreachable | ApprovalRefusal | InvalidField]:
        """Decide about a call that awaits approval.

        Idempotency: repeating a decision succeeds; a different one is refused.
        """
        async with self._database.transaction(actor) as session:
            turn = await session.get(TurnRow, turn_id)
            if turn is not None:
                call = await _locked_call(session, turn_id, tool_call_id)
                if call is None:
                    return Err(Unreachable.MISSING)
                refusal = await self._refusal_of(session, call, request)
                if refusal is not None:
                    return Err(refusal)
                if call.decision is None:
                    await _decide(session, actor, call, request=request, turn=turn)
                return Ok(_decided(call))
        return Err(await why_unreachable(self._database, TurnRow, turn_id))

    async def undelivered(self, *, older_than: timedelta) -> Sequence[DecidedToolCallReference]:
        """Return decisions about calls that still wait, oldest first."""
        query = (
            select(ToolCallRow.turn_id, ToolCallRow.step, ToolCallRow.tool_call_id)
            .where(
                col(ToolCallRow.status) == ToolCallStatus.AWAITING_APPROVAL.value,
                col(ToolCallRow.decided_at) < utc_now() - older_than,
            )
            .order_by(col(ToolCallRow.decided_at))
            .limit(_BATCH)
        )
        async with self._database.transaction(SERVICE) as session:
            found = (await session.exec(query)).all()
        return [
            DecidedToolCallReference(
                turn_id=TurnId(turn_id), call=ToolCallKey(step=step, tool_call_id=tool_call_id)
            )
            for turn_id, step, tool_call_id in found
        ]

    async def _refusal_of(
        self, session: AsyncSession, call: ToolCallRow, request: DecideToolCallRequest
    ) -> ApprovalRefusal | InvalidField | None:
        if call.decision is not None:
            decided = (call.decision, call.decision_reason, call.edited_input)
            wanted = (_DECISIONS[request.decision], request.reason, request.input)
            return None if decided == wanted else ApprovalRefusal.DECIDED
        if call.status != ToolCallStatus.AWAITING_APPROVAL:
            return ApprovalRefusal.NOT_AWAITED
        if request.input is None:
            return None
        schema = await _schema_of(session, call)
        problem = self._validation.problem(schema, request.input)
        return (
            None
            if problem is None
            else InvalidField("body.input", TOOL_INPUT_INVALID.format(problem))
        )


async def _locked_call(
    session: AsyncSession, turn_id: TurnId, tool_call_id: str
) -> ToolCallRow | None:
    """Return the call; the newest if the model used its id several times."""
    query = (
        select(ToolCallRow)
        .where(col(ToolCallRow.turn_id) == turn_id, col(ToolCallRow.tool_call_id) == tool_call_id)
        .order_by(col(ToolCallRow.step).desc())
        .limit(1)
        .with_for_update()
    )
    return (await session.exec(query)).first()


async def _schema_of(session: AsyncSession, call: ToolCallRow) -> dict[str, JsonValue]:
    """Return the schema that was sent to the model; without one any input is valid."""
    context = await session.get(TurnContextRow, call.turn_id)
    offered = () if context is None else PromptLayers.model_validate(context.layers).offered
    return next((tool.input_schema for tool in offered if tool.name == call.name), {})


async def _decide(
    session: AsyncSession,
    actor: Actor,
    call: ToolCallRow,
    *,
    request: DecideToolCallRequest,
    turn: TurnRow,
) -> None:
    call.decision = _DECISIONS[request.decision].value
    call.decision_reason = request.reason
    call.edited_input = request.input
    call.decided_at = utc_now()
    if request.remember_for_chat:
        remembered = {"chat_id": turn.chat_id, "user_id": turn.user_id, "tool": call.name}
        await session.exec(insert(ChatToolApprovalRow).values(remembered).on_conflict_do_nothing())
    record(
        session,
        actor,
        AuditAction.TOOL_CALL_DECIDED,
        (ResourceType.TURN, turn.id),
        details={"tool": call.name, "decision": call.decision, "edited": request.input is not None},
    )


def _decided(call: ToolCallRow) -> DecidedToolCall:
    return DecidedToolCall(
        turn_id=TurnId(call.turn_id),
        step=call.step,
        tool_call_id=call.tool_call_id,
        name=call.name,
        status=ToolCallStatus(call.status),
        decision=ToolCallDecision(call.decision or ""),
        reason=call.decision_reason,
        input=call.input if call.edited_input is None else call.edited_input,
    )
