"""Prepares a turn: it becomes `running`, and its prompt is assembled."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from schema.actors import acting_user
from schema.errors import ErrorCode
from schema.events import EventData, TurnEvent
from schema.ids import MessageId
from schema.turns import PrepareTurnOutput, TurnReference, TurnStatus
from services.contexts.facts import read_facts
from services.contexts.service import ContextService, TurnContext
from services.database import Connection, Database
from services.events.writer import EventWriter, NotAppended, turn_news

# What was decided before stays: a turn that is prepared again sends the same.
_BEGIN: Final = """
WITH begun AS (
    UPDATE turns SET status = 'running', started_at = coalesce(started_at, now()),
                     prompt = coalesce(prompt, $2)
    WHERE id = $1 AND active AND cancel_requested_at IS NULL
      AND status IN ('queued', 'running', 'awaiting_approval')
    RETURNING id, user_id, model, user_message_id
), kept AS (
    INSERT INTO turn_contexts (turn_id, user_id, layers, sources)
    SELECT id, user_id, $3::jsonb, $4::jsonb FROM begun WHERE $3::jsonb IS NOT NULL
    ON CONFLICT (turn_id) DO NOTHING
)
SELECT model, user_message_id FROM begun
"""

_STATUS: Final = """
SELECT status, cancel_requested_at IS NOT NULL AS is_to_stop FROM turns WHERE id = $1
"""


class TurnNotActiveError(Exception):
    """The turn doesn't hold its chat yet; it may once the previous turn has ended."""

    def __init__(self) -> None:
        super().__init__("The turn does not hold its chat yet.")


@dataclass(frozen=True, slots=True)
class TurnRules:
    """The limits of a turn."""

    max_steps: int
    fallback_model: str | None


class _Begun(NamedTuple):
    """A turn that is now running."""

    model: str
    user_message_id: MessageId


class TurnPreparation:
    """Prepares turns. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        events: EventWriter,
        contexts: ContextService,
        rules: TurnRules,
    ) -> None:
        self._database = database
        self._events = events
        self._contexts = contexts
        self._rules = rules

    async def prepare(self, turn: TurnReference) -> PrepareTurnOutput:
        """Mark the turn as running and assemble its prompt.

        Errors: TurnNotActiveError.
        Idempotency: doing it again decides the same.
        """
        tools = await self._contexts.known_tools()
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            facts = await read_facts(connection, turn, most_tokens=self._contexts.most_tokens)
            if facts is None or not facts.may_run:
                return await _why_not(connection, turn)
            context = self._contexts.gather_known(facts, tools)
            begun = None if context is None else await _begin(connection, turn, context)
        if context is None or begun is None:
            # No connection is held while waiting.
            context = await self._contexts.gather(turn.user_id, facts, tools)
            async with self._database.statements(acting_user(turn.user_id)) as connection:
                begun = await _begin(connection, turn, context)
        if isinstance(begun, PrepareTurnOutput):
            return begun
        return await self._begun(turn, context, begun, plan=facts.plan)

    async def _begun(
        self, turn: TurnReference, context: TurnContext, begun: _Begun, *, plan: str | None
    ) -> PrepareTurnOutput:
        """Publish that the turn runs, and return what the workflow needs."""
        first: list[EventData] = [_running(turn, begun.user_message_id), *context.notices]
        news = turn_news(turn, TurnStatus.RUNNING)
        opened = await self._events.open(turn.turn_id, first, news=news)
        if opened is NotAppended.PRESENT and context.notices:
            await self._events.append(turn.turn_id, context.notices)
        if context.window is None:
            return _ending(TurnStatus.FAILED, ErrorCode.PAYLOAD_TOO_LARGE)
        return PrepareTurnOutput(
            plan=plan,
            model=begun.model,
            fallback_model=self._rules.fallback_model,
            max_steps=self._rules.max_steps,
            prompt_tokens=context.corrected_tokens,
        )


async def _begin(
    connection: Connection, turn: TurnReference, context: TurnContext
) -> _Begun | PrepareTurnOutput:
    """Mark the turn as running and store its context, or return how it ends."""
    layers = sources = None
    if context.window is not None:
        layers = context.layers.model_dump(mode="json", by_alias=True)
        sources = [
            source.model_dump(mode="json", by_alias=True, exclude_none=True)
            for source in context.sources
        ]
    begun = await connection.fetchrow(_BEGIN, turn.turn_id, _prompt(context), layers, sources)
    if begun is None:
        return await _why_not(connection, turn)
    return _Begun(begun["model"], MessageId(begun["user_message_id"]))


def _prompt(context: TurnContext) -> dict[str, Any] | None:
    """Return what is stored of the prompt: its version, its tokens, what of the history it has.

    Each attempt rebuilds it from that, and the next turn begins with it.
    """
    window = context.window
    if window is None:
        return None
    kept: dict[str, Any] = {
        "version": context.layers.version,
        "tokens": context.tokens,
        "correction": context.correction,
        "firstTurnId": str(window.first_turn_id),
        "resultTokens": context.result_tokens,
    }
    if context.skipped is not None:
        kept["skipped"] = [str(message_id) for message_id in context.skipped]
    if window.whole_from is not None:
        kept["wholeFromTurnId"] = str(window.whole_from)
    if context.summary_id is not None:
        kept["summaryId"] = str(context.summary_id)
    if context.is_long:
        kept["historyTokens"] = context.history_tokens
    return {**kept, "missing": list(context.missing)} if context.missing else kept


async def _why_not(connection: Connection, turn: TurnReference) -> PrepareTurnOutput:
    """Return how a turn ends that can't begin."""
    row = await connection.fetchrow(_STATUS, turn.turn_id)
    if row is None or (row["is_to_stop"] and not TurnStatus(row["status"]).is_final):
        return _ending(TurnStatus.CANCELLED)
    if TurnStatus(row["status"]).is_final:
        return _ending(TurnStatus(row["status"]))
    raise TurnNotActiveError


def _ending(status: TurnStatus, code: ErrorCode | None = None) -> PrepareTurnOutput:
    return PrepareTurnOutput(ending=status, error_code=code, model="", max_steps=0, prompt_tokens=0)


def _running(turn: TurnReference, user_message_id: MessageId) -> TurnEvent:
    return TurnEvent(
        turn_id=turn.turn_id,
        chat_id=turn.chat_id,
        status=TurnStatus.RUNNING,
        user_message_id=user_message_id,
    )
