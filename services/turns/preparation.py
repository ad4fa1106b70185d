"""Owns preparing a turn: it becomes `running`, and what the model will be sent is decided."""

import json
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from schema.actors import acting_user
from schema.errors import ErrorCode
from schema.events import TurnEvent
from schema.ids import MessageId
from schema.turns import PrepareTurnOutput, TurnReference, TurnStatus
from services.database import Connection, Database
from services.events.writer import EventWriter
from services.prompts.layers import BASE_PROMPT_VERSION, system_layer, tools_layer
from services.prompts.tokens import estimated_tokens
from services.prompts.window import MessageSize, Window, fit
from services.tools.registry import ToolRegistry

_SIZES: Final = """
SELECT turn_id, length(content) AS chars FROM messages
WHERE chat_id = $1 AND turn_id <= $2 AND NOT superseded ORDER BY turn_id, id
"""

# Doing it again changes nothing but the prompt, which comes out the same.
_BEGIN: Final = """
UPDATE turns SET status = 'running', started_at = coalesce(started_at, now()), prompt = $2
WHERE id = $1 AND active AND cancel_requested_at IS NULL
  AND status IN ('queued', 'running', 'awaiting_approval')
RETURNING model, user_message_id
"""

_STATUS: Final = """
SELECT status, cancel_requested_at IS NOT NULL AS is_to_stop FROM turns WHERE id = $1
"""


class TurnNotActiveError(Exception):
    """The turn does not hold its chat yet; it may once the one before it has ended."""

    def __init__(self) -> None:
        super().__init__("The turn does not hold its chat yet.")


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What bounds a turn."""

    max_steps: int
    prompt_tokens: int
    fallback_model: str | None


class TurnPreparation:
    """Makes turns ready to run."""

    def __init__(
        self, database: Database, events: EventWriter, tools: ToolRegistry, rules: TurnRules
    ) -> None:
        self._database = database
        self._events = events
        self._rules = rules
        self._stable_tokens = _stable_tokens(tools)

    async def prepare(self, turn: TurnReference) -> PrepareTurnOutput:
        """Mark the turn as running and decide what of the conversation fits its prompt.

        Errors: TurnNotActiveError; DatabaseUnavailableError.
        Idempotency: doing it again decides the same.
        """
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            sizes = await connection.fetch(_SIZES, turn.chat_id, turn.turn_id)
            window = self._window([MessageSize(row["turn_id"], row["chars"]) for row in sizes])
            prompt = None if window is None else self._prompt(window)
            begun = await connection.fetchrow(_BEGIN, turn.turn_id, prompt)
            if begun is None:
                return await _why_not(connection, turn)
        await self._events.open(turn.turn_id, [_running(turn, begun["user_message_id"])])
        if prompt is None:
            return _ending(TurnStatus.FAILED, ErrorCode.PAYLOAD_TOO_LARGE)
        return PrepareTurnOutput(
            model=begun["model"],
            fallback_model=self._rules.fallback_model,
            max_steps=self._rules.max_steps,
            prompt_tokens=sum(prompt["tokens"].values()),
        )

    def _window(self, sizes: list[MessageSize]) -> Window | None:
        if not sizes:
            return None
        budget = self._rules.prompt_tokens - sum(self._stable_tokens.values())
        return fit(sizes, budget_tokens=budget)

    def _prompt(self, window: Window) -> dict[str, Any]:
        """Return what is kept of the prompt: layers, tokens, and where its history begins."""
        return {
            "version": BASE_PROMPT_VERSION,
            "tokens": {**self._stable_tokens, "conversation": window.tokens},
            "firstTurnId": str(window.first_turn_id),
        }


async def _why_not(connection: Connection, turn: TurnReference) -> PrepareTurnOutput:
    """Say how a turn ends that can't begin."""
    row = await connection.fetchrow(_STATUS, turn.turn_id)
    if row is None or (row["is_to_stop"] and not TurnStatus(row["status"]).is_final):
        return _ending(TurnStatus.CANCELLED)
    if TurnStatus(row["status"]).is_final:
        return _ending(TurnStatus(row["status"]))
    raise TurnNotActiveError


def _ending(status: TurnStatus, code: ErrorCode | None = None) -> PrepareTurnOutput:
    return PrepareTurnOutput(ending=status, error_code=code, model="", max_steps=0, prompt_tokens=0)


def _running(turn: TurnReference, user_message_id: UUID) -> TurnEvent:
    return TurnEvent(
        turn_id=turn.turn_id,
        chat_id=turn.chat_id,
        status=TurnStatus.RUNNING,
        user_message_id=MessageId(user_message_id),
    )


def _stable_tokens(tools: ToolRegistry) -> dict[str, int]:
    """Return the tokens of the layers that are the same for every message."""
    definitions = tools.definitions()
    schemas = sum(
        len(definition.description) + len(json.dumps(definition.input_schema))
        for definition in definitions
    )
    return {
        "system": estimated_tokens(len(system_layer())),
        "tools": estimated_tokens(len(tools_layer(definitions)) + schemas),
    }
