"""Owns finding answers of workflow tools that the turns which wait for them may not know of."""

from collections.abc import Sequence
from typing import Final

from schema.actors import SERVICE, acting_user
from schema.ids import ChatId, TurnId, UserId
from schema.tool_callbacks import AnsweredCall
from schema.turns import RunToolInput, ToolCallStatus
from services.database import Database
from services.turns.tool_calls import ToolCallGoneError

_AT_ONCE: Final = 500

_STATUS: Final = """
SELECT status FROM tool_calls WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
"""
# `callback_until` is set where a call's answer was to come later; `tool_calls_answered_idx` leads
# to those that have ended of late.
_ANSWERED: Final = """
SELECT tool_calls.turn_id, turns.chat_id, tool_calls.user_id, tool_calls.step,
       tool_calls.tool_call_id, tool_calls.status
FROM tool_calls JOIN turns ON turns.id = tool_calls.turn_id
WHERE tool_calls.callback_id IS NOT NULL AND tool_calls.callback_until IS NOT NULL
  AND tool_calls.finished_at > now() - interval '1 day'
  AND turns.status IN ('running', 'awaiting_approval')
ORDER BY tool_calls.finished_at DESC LIMIT $1
"""


class CallbackDelivery:
    """Knows which calls are answered. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def final_status(self, call: RunToolInput) -> ToolCallStatus | None:
        """Return how a call has ended, or None while its answer is still to come.

        Errors: ToolCallGoneError.
        """
        key = (call.turn.turn_id, call.step, call.tool_call_id)
        async with self._database.statements(acting_user(call.turn.user_id)) as connection:
            found: str | None = await connection.fetchval(_STATUS, *key)
        if found is None:
            raise ToolCallGoneError
        status = ToolCallStatus(found)
        return status if status.is_final else None

    async def answered(self) -> Sequence[AnsweredCall]:
        """Return calls of turns under way that were answered later, the newest first.

        Most of their turns know by now; that can't be seen here, and telling them again is
        harmless.
        """
        # The turns of all users are looked through.
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(_ANSWERED, _AT_ONCE)
        return [
            AnsweredCall(
                turn_id=TurnId(row["turn_id"]),
                chat_id=ChatId(row["chat_id"]),
                user_id=UserId(row["user_id"]),
                step=row["step"],
                tool_call_id=row["tool_call_id"],
                status=ToolCallStatus(row["status"]),
            )
            for row in rows
        ]
