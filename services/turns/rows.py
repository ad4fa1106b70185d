"""Rows of turns, messages and tool calls, and what clients get of turns."""

from datetime import datetime

import asyncpg

from schema.errors import RETRYABLE, ErrorCode
from schema.ids import ChatId, MessageId, TurnId, UserId
from schema.tables import ToolCallRow, TurnRow
from schema.turn_inspection import OwnedTurn
from schema.turn_options import options_as_sent
from schema.turns import ToolCall, ToolCallStatus, Turn, TurnError, TurnReference, TurnStatus
from schema.usage import TokenUsage


def turn_row(found: asyncpg.Record) -> TurnRow:
    """Return the row of a plain SQL statement, without the statement's own columns."""
    return TurnRow(**{name: found[name] for name in TurnRow.model_fields})


def tool_call_row(found: asyncpg.Record) -> ToolCallRow:
    """Return the row of a plain SQL statement, without the statement's own columns."""
    return ToolCallRow(**{name: found[name] for name in ToolCallRow.model_fields})


def turn_from_row(row: TurnRow) -> Turn:
    """Return the turn that the row holds."""
    answer_id = row.assistant_message_id
    return Turn(
        id=TurnId(row.id),
        chat_id=ChatId(row.chat_id),
        status=TurnStatus(row.status),
        model=row.model,
        user_message_id=MessageId(row.user_message_id),
        assistant_message_id=None if answer_id is None else MessageId(answer_id),
        regenerates=None if row.regenerates is None else TurnId(row.regenerates),
        options=options_as_sent(row.options),
        steers=None if row.steers is None else TurnId(row.steers),
        joined_step=row.joined_step,
        error=_error_from_row(row),
        usage=TokenUsage.model_validate(row, from_attributes=True),
        cost_usd=row.cost_usd,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def tool_call_from_row(row: ToolCallRow) -> ToolCall:
    """Return the tool call that the row holds."""
    return ToolCall(
        turn_id=TurnId(row.turn_id),
        step=row.step,
        tool_call_id=row.tool_call_id,
        name=row.name,
        status=ToolCallStatus(row.status),
        input=row.input if row.edited_input is None else row.edited_input,
        output=row.output,
        expires_at=row.expires_at if row.status == ToolCallStatus.AWAITING_APPROVAL else None,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def owned_turn_from_row(row: TurnRow) -> OwnedTurn:
    """Return the turn that the row holds, with its owner."""
    return OwnedTurn(**vars(turn_from_row(row)), user_id=UserId(row.user_id))


def reference_from_row(row: TurnRow) -> TurnReference:
    """Return the reference by which workflows identify the turn."""
    return TurnReference(
        turn_id=TurnId(row.id),
        chat_id=ChatId(row.chat_id),
        user_id=UserId(row.user_id),
        model=row.model,
        begins_with_call=True,
    )


def _error_from_row(row: TurnRow) -> TurnError | None:
    if row.error_code is None:
        return None
    code = ErrorCode(row.error_code)
    return TurnError(code=code, message=row.error_message or "", retryable=code in RETRYABLE)


def seconds_between(begun: datetime, ended: datetime | None) -> float | None:
    """Return how long something took; None if it has not ended."""
    return None if ended is None else round((ended - begun).total_seconds(), 3)
