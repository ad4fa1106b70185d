"""Owns taking the later answer of a workflow tool: believed by its signature, stored once.

Does not wake the turn that waits for it: whoever calls this does, and the sweep behind them.
"""

from collections.abc import Mapping
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
from schema.turns import ToolCallStatus, TurnStatus
from services.database import Database
from services.events.snapshots import tool_call_event
from services.events.writer import EventWriter, OvertakenError
from services.tools.definition import DEFAULT_MAX_OUTPUT_CHARS, ToolOutcome, bounded
from services.tools.secrets import SecretVault
from services.turns import tool_call_statements as sql
from services.turns.rows import tool_call_row
from services.workflow_tools.answers import read_json, text_of
from services.workflow_tools.signatures import SignatureProblem, problem_of_signature
from services.workflow_tools.webhooks import find_webhook

_log = structlog.get_logger(__name__)

_FIND: Final = """
SELECT tool_calls.turn_id, tool_calls.step, tool_calls.tool_call_id, tool_calls.user_id,
       tool_calls.name, tool_calls.status, turns.chat_id, turns.status AS turn_status,
       turns.cancel_requested_at IS NOT NULL AS is_stopping,
       coalesce(tool_calls.callback_until < now(), false) AS is_late
FROM tool_calls JOIN turns ON turns.id = tool_calls.turn_id
WHERE tool_calls.callback_id = $1
"""


class CallbackRefusal(StrEnum):
    """Why an answer is not taken."""

    UNKNOWN = "unknown"
    UNSIGNED = "unsigned"
    OUT_OF_TIME = "out_of_time"
    WRONG_SIGNATURE = "wrong_signature"
    ANSWERED = "answered"
    TURN_OVER = "turn_over"
    TOO_LATE = "too_late"
    MALFORMED = "malformed"


_OF_SIGNATURE: Final = {
    SignatureProblem.MISSING: CallbackRefusal.UNSIGNED,
    SignatureProblem.OUT_OF_TIME: CallbackRefusal.OUT_OF_TIME,
    SignatureProblem.WRONG: CallbackRefusal.WRONG_SIGNATURE,
}


class ToolCallbacks:
    """Takes answers. Errors: DatabaseUnavailableError, UnreadableSecretError."""

    def __init__(self, database: Database, vault: SecretVault, events: EventWriter) -> None:
        self._database = database
        self._vault = vault
        self._events = events

    async def accept(
        self, callback_id: UUID, headers: Mapping[str, str], body: bytes
    ) -> Result[AnsweredCall, CallbackRefusal]:
        """Store the answer of a call that waits for it, and tell those who follow its turn.

        What is signed is the callback's id, so an answer to one call is worth nothing for another.
        Idempotency: the first answer counts; the same one again is refused.
        """
        found = await self._find(callback_id)
        if found is None:
            return Err(CallbackRefusal.UNKNOWN)
        refusal = await self._disbelief(callback_id, found["name"], headers, body)
        refusal = refusal or _refusal_of(found)
        if refusal is not None:
            return Err(refusal)
        outcome = _outcome_in(body)
        if outcome is None:
            return Err(CallbackRefusal.MALFORMED)
        row = await self._store(found, bounded(outcome, max_chars=DEFAULT_MAX_OUTPUT_CHARS))
        if row is None:
            # It ended while this was read: by its turn, or by another answer.
            found = await self._find(callback_id)
            ended = None if found is None else _refusal_of(found)
            return Err(ended or CallbackRefusal.ANSWERED)
        await self._tell(row)
        return Ok(_answered(found, ToolCallStatus(row.status)))

    async def _find(self, callback_id: UUID) -> asyncpg.Record | None:
        # Whose call it is has to be found out first; nobody is signed in here.
        async with self._database.statements(SERVICE) as connection:
            return await connection.fetchrow(_FIND, callback_id)

    async def _disbelief(
        self, callback_id: UUID, tool: str, headers: Mapping[str, str], body: bytes
    ) -> CallbackRefusal | None:
        """Return why the tool's owner does not seem to have sent this, or None."""
        webhook = await find_webhook(self._database, self._vault, tool)
        if webhook is None:
            # With the tool went its secret: nobody can say any more who sends this.
            return CallbackRefusal.UNKNOWN
        problem = problem_of_signature(
            webhook.key, body, headers, message_id=str(callback_id), now=utc_now()
        )
        return None if problem is None else _OF_SIGNATURE[problem]

    async def _store(self, found: asyncpg.Record, outcome: ToolOutcome) -> ToolCallRow | None:
        status = ToolCallStatus.FAILED if outcome.is_error else ToolCallStatus.COMPLETED
        call = (found["turn_id"], found["step"], found["tool_call_id"])
        async with self._database.statements(acting_user(UserId(found["user_id"]))) as connection:
            # What the call costs was recorded when it was made.
            stored = await connection.fetchrow(
                sql.STORE, *call, status.value, outcome.output, None, 0
            )
        return None if stored is None else tool_call_row(stored)

    async def _tell(self, row: ToolCallRow) -> None:
        try:
            await self._events.append_end_of_call(TurnId(row.turn_id), tool_call_event(row))
        except OvertakenError:
            _log.info("callback_after_end_of_stream", turn_id=str(row.turn_id))


def _refusal_of(found: asyncpg.Record) -> CallbackRefusal | None:
    """Return why a call takes no answer any more, or None."""
    if TurnStatus(found["turn_status"]).is_final or found["is_stopping"]:
        return CallbackRefusal.TURN_OVER
    if ToolCallStatus(found["status"]).is_final:
        return CallbackRefusal.ANSWERED
    return CallbackRefusal.TOO_LATE if found["is_late"] else None


def _outcome_in(body: bytes) -> ToolOutcome | None:
    value = read_json(body)
    if isinstance(value, Err):
        return None
    try:
        answer = ToolCallbackRequest.model_validate(value.value)
    except ValidationError:
        return None
    return ToolOutcome(output=text_of(answer.output), is_error=answer.is_error)


def _answered(found: asyncpg.Record, status: ToolCallStatus) -> AnsweredCall:
    return AnsweredCall(
        turn_id=TurnId(found["turn_id"]),
        chat_id=ChatId(found["chat_id"]),
        user_id=UserId(found["user_id"]),
        step=found["step"],
        tool_call_id=found["tool_call_id"],
        status=status,
    )
