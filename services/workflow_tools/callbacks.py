"""Callbacks: answers of workflow tools that come later, authenticated by signature, stored once.

Does not wake the turn that waits for the answer: the caller does, or else the sweep, which finds
stored answers with `CallbackDelivery`.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg
import structlog
from pydantic import ValidationError

from schema.actors import SERVICE, acting_user
from schema.ids import ChatId, TurnId, UserId
from schema.result import Err, Ok, Result
from schema.tables import ToolCallRow
from schema.tables.columns import utc_now
from schema.tool_callbacks import AnsweredCall, ToolCallbackRequest
from schema.turns import RunToolInput, ToolCallStatus, TurnStatus
from services.database import Database
from services.events.snapshots import tool_call_event
from services.events.writer import EventWriter, OvertakenError
from services.metrics import count_tool_call
from services.outgoing.signatures import SignatureProblem, problem_of_signature
from services.tools.definition import DEFAULT_MAX_OUTPUT_CHARS, ToolOutcome, bounded
from services.tools.masks import SecretMask
from services.tools.secrets import SecretVault
from services.turns import tool_call_statements as sql
from services.turns.rows import tool_call_row
from services.turns.tool_calls import ToolCallGoneError
from services.workflow_tools.answers import read_json, text_of
from services.workflow_tools.service import Webhook, find_webhook

_log = structlog.get_logger(__name__)

_FIND: Final = """
SELECT tool_calls.turn_id, tool_calls.step, tool_calls.tool_call_id, tool_calls.user_id,
       tool_calls.name, tool_calls.status, turns.chat_id, turns.status AS turn_status,
       turns.cancel_requested_at IS NOT NULL AS is_stopping,
       coalesce(tool_calls.callback_until < now(), false) AS is_late
FROM tool_calls JOIN turns ON turns.id = tool_calls.turn_id
WHERE tool_calls.callback_id = $1
"""
_STATUS: Final = """
SELECT status FROM tool_calls WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
"""
_MAX_CALLS: Final = 500
# `callback_until` is set if a call's answer was to come later; `tool_calls_answered_idx` covers
# those that have ended recently.
_ANSWERED: Final = """
SELECT tool_calls.turn_id, turns.chat_id, tool_calls.user_id, tool_calls.step,
       tool_calls.tool_call_id, tool_calls.status
FROM tool_calls JOIN turns ON turns.id = tool_calls.turn_id
WHERE tool_calls.callback_id IS NOT NULL AND tool_calls.callback_until IS NOT NULL
  AND tool_calls.finished_at > now() - interval '1 day'
  AND turns.status IN ('running', 'awaiting_approval')
ORDER BY tool_calls.finished_at DESC LIMIT $1
"""


class CallbackRefusal(StrEnum):
    """Why a callback is refused."""

    UNKNOWN = "unknown"
    UNSIGNED = "unsigned"
    OUT_OF_TIME = "out_of_time"
    WRONG_SIGNATURE = "wrong_signature"
    ANSWERED = "answered"
    TURN_OVER = "turn_over"
    TOO_LATE = "too_late"
    MALFORMED = "malformed"


_SIGNATURE_REFUSALS: Final = {
    SignatureProblem.MISSING: CallbackRefusal.UNSIGNED,
    SignatureProblem.OUT_OF_TIME: CallbackRefusal.OUT_OF_TIME,
    SignatureProblem.WRONG: CallbackRefusal.WRONG_SIGNATURE,
}


class ToolCallbacks:
    """Accepts callbacks. Errors: DatabaseUnavailableError, UnreadableSecretError."""

    def __init__(self, database: Database, vault: SecretVault, events: EventWriter) -> None:
        self._database = database
        self._vault = vault
        self._events = events

    async def accept(
        self, callback_id: UUID, headers: Mapping[str, str], body: bytes
    ) -> Result[AnsweredCall, CallbackRefusal]:
        """Store the answer of a call that waits for it, and publish it to the turn's event stream.

        The signature covers the callback's id, so an answer to one call can't be used for another.
        Idempotency: the first answer counts; later ones are refused.
        """
        found = await self._find(callback_id)
        if found is None:
            return Err(CallbackRefusal.UNKNOWN)
        webhook = await self._sender(callback_id, found["name"], headers, body)
        if isinstance(webhook, Err):
            return webhook
        refusal = _refusal_of(found)
        if refusal is not None:
            return Err(refusal)
        outcome = _outcome_in(body, webhook.value.mask)
        if outcome is None:
            return Err(CallbackRefusal.MALFORMED)
        row = await self._store(found, bounded(outcome, max_chars=DEFAULT_MAX_OUTPUT_CHARS))
        if row is None:
            # It ended in the meantime: with its turn, or by another answer.
            found = await self._find(callback_id)
            ended = None if found is None else _refusal_of(found)
            return Err(ended or CallbackRefusal.ANSWERED)
        await self._publish(row)
        return Ok(_answered(found, ToolCallStatus(row.status)))

    async def _find(self, callback_id: UUID) -> asyncpg.Record | None:
        # As the service: the caller is not signed in, and the call's user is not known yet.
        async with self._database.statements(SERVICE) as connection:
            return await connection.fetchrow(_FIND, callback_id)

    async def _sender(
        self, callback_id: UUID, tool: str, headers: Mapping[str, str], body: bytes
    ) -> Result[Webhook, CallbackRefusal]:
        """Return the webhook that signed the request, or why its signature is invalid."""
        webhook = await find_webhook(self._database, self._vault, tool)
        if webhook is None:
            # The secret was deleted with the tool, so that nothing can be verified.
            return Err(CallbackRefusal.UNKNOWN)
        problem = problem_of_signature(
            webhook.key, body, headers, message_id=str(callback_id), now=utc_now()
        )
        return Ok(webhook) if problem is None else Err(_SIGNATURE_REFUSALS[problem])

    async def _store(self, found: asyncpg.Record, outcome: ToolOutcome) -> ToolCallRow | None:
        status = ToolCallStatus.FAILED if outcome.is_error else ToolCallStatus.COMPLETED
        call = (found["turn_id"], found["step"], found["tool_call_id"])
        async with self._database.statements(acting_user(UserId(found["user_id"]))) as connection:
            # The call's cost was recorded when it was made.
            stored = await connection.fetchrow(
                sql.STORE, *call, status.value, outcome.output, None, 0
            )
        if stored is None:
            return None
        row = tool_call_row(stored)
        count_tool_call(row, tool=row.name)
        return row

    async def _publish(self, row: ToolCallRow) -> None:
        try:
            await self._events.append_end_of_call(TurnId(row.turn_id), tool_call_event(row))
        except OvertakenError:
            _log.info("callback_after_end_of_stream", turn_id=str(row.turn_id))


class CallbackDelivery:
    """Finds answered calls whose turns may not know it. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def final_status(self, call: RunToolInput) -> ToolCallStatus | None:
        """Return the final status of a call, or None while it waits for its answer.

        Errors: ToolCallGoneError.
        """
        key = (call.turn.turn_id, call.step, call.tool_call_id)
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            found: str | None = await connection.fetchval(_STATUS, *key)
        if found is None:
            raise ToolCallGoneError
        status = ToolCallStatus(found)
        return status if status.is_final else None

    async def answered_calls(self) -> Sequence[AnsweredCall]:
        """Return calls of active turns that were answered by a callback, the newest first.

        Most of their turns know by now; that can't be seen here, and a repeated delivery is
        harmless.
        """
        # As the service: the turns of all users are searched.
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(_ANSWERED, _MAX_CALLS)
        return [AnsweredCall.model_validate(dict(row)) for row in rows]


def _refusal_of(found: asyncpg.Record) -> CallbackRefusal | None:
    """Return why a call no longer accepts an answer, or None."""
    if TurnStatus(found["turn_status"]).is_final or found["is_stopping"]:
        return CallbackRefusal.TURN_OVER
    if ToolCallStatus(found["status"]).is_final:
        return CallbackRefusal.ANSWERED
    return CallbackRefusal.TOO_LATE if found["is_late"] else None


def _outcome_in(body: bytes, mask: SecretMask) -> ToolOutcome | None:
    value = read_json(body)
    if isinstance(value, Err):
        return None
    try:
        answer = ToolCallbackRequest.model_validate(value.value)
    except ValidationError:
        return None
    return ToolOutcome(output=mask(text_of(answer.output)), is_error=answer.is_error)


def _answered(found: asyncpg.Record, status: ToolCallStatus) -> AnsweredCall:
    return AnsweredCall(
        turn_id=TurnId(found["turn_id"]),
        chat_id=ChatId(found["chat_id"]),
        user_id=UserId(found["user_id"]),
        step=found["step"],
        tool_call_id=found["tool_call_id"],
        status=status,
    )
