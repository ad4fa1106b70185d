"""Prepares a turn: it becomes `running`, and its prompt is assembled.

TurnNotActiveError     the turn before it still holds the chat
PromptTooLargeError    the message alone does not fit; the turn has begun, and is to fail
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from schema.actors import acting_user
from schema.errors import ErrorCode
from schema.events import EventData, TurnEvent
from schema.ids import MessageId
from schema.turns import PrepareTurnOutput, TurnReference, TurnStatus
from services.contexts.facts import read_facts
from services.contexts.service import ContextService, TurnContext
from services.database import Connection, Database
from services.events.writer import EventWriter, NotAppended, turn_news

T = TypeVar("T")

# What was decided before stays: a turn that is prepared again sends the same.
_BEGIN: Final = """
WITH begun AS (
    UPDATE turns SET status = 'running', started_at = coalesce(started_at, now()),
                     prompt = coalesce(prompt, $2)
    WHERE id = $1 AND active AND cancel_requested_at IS NULL
      AND status IN ('queued', 'running', 'awaiting_approval')
    RETURNING id, user_id, user_message_id
), kept AS (
    INSERT INTO turn_contexts (turn_id, user_id, layers, sources)
    SELECT id, user_id, $3::jsonb, $4::jsonb FROM begun WHERE $3::jsonb IS NOT NULL
    ON CONFLICT (turn_id) DO NOTHING
)
SELECT user_message_id FROM begun
"""

_STATUS: Final = """
SELECT status, cancel_requested_at IS NOT NULL AS is_to_stop FROM turns WHERE id = $1
"""


class TurnNotActiveError(Exception):
    """The turn doesn't hold its chat yet; it may once the previous turn has ended."""

    def __init__(self) -> None:
        super().__init__("The turn does not hold its chat yet.")


class PromptTooLargeError(Exception):
    """The turn's message alone does not fit into a prompt."""

    def __init__(self) -> None:
        super().__init__("The message does not fit into a prompt.")


@dataclass(frozen=True, slots=True)
class TurnRules:
    """The limits of a turn."""

    max_steps: int
    fallback_model: str | None


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
        self.rules = rules

    async def prepare(self, turn: TurnReference) -> PrepareTurnOutput:
        """Mark the turn as running and assemble its prompt.

        Errors: TurnNotActiveError.
        Idempotency: doing it again decides the same.
        """
        try:
            status = await self.begin(turn, partial(_status, turn))
        except PromptTooLargeError:
            return PrepareTurnOutput(
                ending=TurnStatus.FAILED, error_code=ErrorCode.PAYLOAD_TOO_LARGE, max_steps=0
            )
        if status is not TurnStatus.RUNNING:
            return PrepareTurnOutput(ending=status, max_steps=0)
        return PrepareTurnOutput(
            fallback_model=self.rules.fallback_model, max_steps=self.rules.max_steps
        )

    async def begin(self, turn: TurnReference, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Mark the turn as running, assemble its prompt, and do `work` in the same transaction.

        A turn that has ended, or is to, is left as it is: the work finds out. If it raises, the
        turn has not begun.
        Errors: TurnNotActiveError, PromptTooLargeError; those of `work`.
        Idempotency: doing it again decides the same.
        """
        tools = await self._contexts.known_tools()
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            facts = await read_facts(connection, turn, most_tokens=self._contexts.most_tokens)
            if facts is None or not facts.may_run:
                return await _ended(connection, turn, work)
            begin = partial(_begin, turn=turn, plan=facts.plan, work=work)
            context = self._contexts.gather_known(facts, tools)
            begun = None if context is None else await begin(connection, context)
        if context is None or begun is None:
            # No connection is held while waiting.
            context = await self._contexts.gather(turn.user_id, facts, tools)
            async with self._database.statements(acting_user(turn.user_id)) as connection:
                begun = await begin(connection, context)
        message_id, done = begun
        # One that had begun before has a stream. If Redis has lost that, it must not look like a
        # whole one that begins here.
        if message_id is not None and facts.stored is None:
            await self._publish(turn, context, message_id)
        if isinstance(done, PromptTooLargeError):
            raise done
        return done

    async def _publish(
        self, turn: TurnReference, context: TurnContext, user_message_id: MessageId
    ) -> None:
        """Publish that the turn runs."""
        running = TurnEvent(
            turn_id=turn.turn_id,
            chat_id=turn.chat_id,
            status=TurnStatus.RUNNING,
            user_message_id=user_message_id,
        )
        first: list[EventData] = [running, *context.notices]
        news = turn_news(turn, TurnStatus.RUNNING)
        opened = await self._events.open(turn.turn_id, first, news=news)
        if opened is NotAppended.PRESENT and context.notices:
            await self._events.append(turn.turn_id, context.notices)


async def _begin(
    connection: Connection,
    context: TurnContext,
    *,
    turn: TurnReference,
    plan: str | None,
    work: Callable[[Connection], Awaitable[T]],
) -> tuple[MessageId | None, T | PromptTooLargeError]:
    """Mark the turn as running and store its context; return its message and what `work` returned.

    Without a message, the turn has ended.
    """
    layers = sources = None
    if context.window is not None:
        layers = context.layers.model_dump(mode="json", by_alias=True)
        sources = [
            source.model_dump(mode="json", by_alias=True, exclude_none=True)
            for source in context.sources
        ]
    message_id = await connection.fetchval(
        _BEGIN, turn.turn_id, _prompt(context, plan), layers, sources
    )
    if message_id is None:
        return None, await _ended(connection, turn, work)
    # The turn runs, and then fails: that is what its stream says.
    done = PromptTooLargeError() if context.window is None else await work(connection)
    return MessageId(message_id), done


async def _ended(
    connection: Connection, turn: TurnReference, work: Callable[[Connection], Awaitable[T]]
) -> T:
    """Do the work of a turn that can't begin, unless that is because it waits."""
    if not (await _status(turn, connection)).is_final:
        raise TurnNotActiveError
    return await work(connection)


async def _status(turn: TurnReference, connection: Connection) -> TurnStatus:
    """Return the turn's status: `cancelled` of one that is to end, or that was deleted."""
    row = await connection.fetchrow(_STATUS, turn.turn_id)
    if row is None:
        return TurnStatus.CANCELLED
    status = TurnStatus(row["status"])
    return TurnStatus.CANCELLED if row["is_to_stop"] and not status.is_final else status


def _prompt(context: TurnContext, plan: str | None) -> dict[str, Any] | None:
    """Return what is stored of the prompt: its version, its tokens, what of the history it has.

    Each attempt rebuilds it from that, and the next turn begins with it.
    """
    window = context.window
    if window is None:
        return None
    kept: dict[str, Any] = {
        "version": context.layers.version,
        "plan": plan,
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
