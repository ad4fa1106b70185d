"""Owns preparing a turn: it becomes `running`, and what the model will be sent is decided."""

import json
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import acting_user
from schema.errors import ErrorCode
from schema.tables import MessageRow, TurnRow
from schema.tables.columns import utc_now
from schema.turns import PrepareTurnOutput, TurnReference, TurnStatus
from services.database import Database
from services.events.snapshots import turn_event
from services.events.writer import EventWriter
from services.prompts.layers import BASE_PROMPT_VERSION, system_layer, tools_layer
from services.prompts.tokens import estimated_tokens
from services.prompts.window import MessageSize, fit
from services.tools.registry import ToolRegistry


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
        async with self._database.transaction(acting_user(turn.user_id)) as session:
            row = await session.get(TurnRow, turn.turn_id, with_for_update=True)
            if row is None:
                return self._ending(TurnStatus.CANCELLED)
            status = TurnStatus(row.status)
            if status.is_final or row.cancel_requested_at is not None:
                return self._ending(status if status.is_final else TurnStatus.CANCELLED)
            if not row.active:
                raise TurnNotActiveError
            fits = await self._decide_prompt(session, row)
            row.status = TurnStatus.RUNNING
            row.started_at = row.started_at or utc_now()
            await session.flush()
        await self._events.open(turn.turn_id, [turn_event(row)])
        if not fits:
            return self._ending(TurnStatus.FAILED, ErrorCode.PAYLOAD_TOO_LARGE)
        return PrepareTurnOutput(
            model=row.model,
            fallback_model=self._rules.fallback_model,
            max_steps=self._rules.max_steps,
        )

    def _ending(self, status: TurnStatus, code: ErrorCode | None = None) -> PrepareTurnOutput:
        return PrepareTurnOutput(ending=status, error_code=code, model="", max_steps=0)

    async def _decide_prompt(self, session: AsyncSession, turn: TurnRow) -> bool:
        """Keep with the turn what it will send: layers, tokens, and where its history begins."""
        window = fit(
            await _sizes(session, turn),
            budget_tokens=self._rules.prompt_tokens - sum(self._stable_tokens.values()),
        )
        if window is None:
            return False
        turn.prompt = {
            "version": BASE_PROMPT_VERSION,
            "tokens": {**self._stable_tokens, "conversation": window.tokens},
            "firstTurnId": str(window.first_turn_id),
        }
        return True


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


async def _sizes(session: AsyncSession, turn: TurnRow) -> list[MessageSize]:
    query = (
        select(MessageRow.turn_id, func.length(MessageRow.content))
        .where(col(MessageRow.chat_id) == turn.chat_id, col(MessageRow.turn_id) <= turn.id)
        .order_by(col(MessageRow.turn_id), col(MessageRow.id))
    )
    return [MessageSize(turn_id, chars) for turn_id, chars in (await session.exec(query)).all()]
