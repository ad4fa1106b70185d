"""Ends turns: the message, the cost, the last events, the next turn."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

import asyncpg
import structlog

from schema.actors import acting_user
from schema.chats import MessageOutline
from schema.errors import TURN_MESSAGES, ErrorCode
from schema.events import EventData, step_events
from schema.ids import ChatId, TurnId, new_id, turn_workflow_id
from schema.names import Work
from schema.tables import TurnRow
from schema.turns import (
    FinishTurnInput,
    FinishTurnOutput,
    TurnOutcome,
    TurnReference,
    TurnStatus,
)
from schema.usage import TokenUsage
from schema.wire import format_usd
from services.database import Connection, Database
from services.database.queries import AttributeRow
from services.due_works import STORE_DUE, works_due
from services.events.snapshots import ending_events, joined_events, tool_call_event
from services.events.writer import EventWriter, OvertakenError, turn_news
from services.message_parts import OUTLINE, outline_from_row
from services.metrics import count_turn
from services.prompts.tokens import tokens_of
from services.subscriptions.budget_alerts import (
    UNREPORTED_IN_TURN,
    ReachedBudgets,
    mark_reported,
    notices_of,
    reached_from,
)
from services.subscriptions.ledger import LOSE_OPEN_IN_TURN, SPENT_IN_TURN
from services.turns.rows import (
    reference_from_row,
    seconds_between,
    tool_call_row,
    turn_row,
)
from services.turns.steering import LAST_ASKED
from services.turns.structured_answers import structured_value
from services.turns.tool_work import EndingStep, in_later_prompts

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_UNENDED_CALL: Final = "The turn ended before this call did."

_TURN: Final = f"""
SELECT turns.*, spent.*, ({UNREPORTED_IN_TURN}) AS reached, ARRAY(
           SELECT ROW (step, attempt, status, model, text, stop_reason,
                       blocks @> '[{{"type": "tool_use"}}]',
                       CASE WHEN status = 'running' THEN thinking END, thinking <> '',
                       status = 'completed' AND problem IS NULL)
           FROM steps WHERE turn_id = $1 ORDER BY step
       ) AS steps, EXISTS (
           SELECT FROM turns AS other WHERE other.chat_id = turns.chat_id AND other.id <> $1
           AND status IN ('queued', 'running', 'awaiting_approval')
       ) AS has_others, (SELECT title = '' FROM chats WHERE id = turns.chat_id) AS is_untitled
FROM turns CROSS JOIN ({SPENT_IN_TURN}) AS spent WHERE turns.id = $1
"""  # noqa: S608 -- statements of our own


_GIVE_UP_CALLS: Final = """
UPDATE tool_calls SET status = 'failed', output = $2, finished_at = now()
WHERE turn_id = $1 AND status NOT IN ('completed', 'failed', 'denied') RETURNING *
"""

_GIVE_UP_STEP: Final = """
UPDATE steps SET status = 'cancelled', attempt = $3, updated_at = now()
WHERE turn_id = $1 AND step = $2
"""
# The answer follows the last message that joined the turn; questions that were asked while it ran
# follow the answer.
_END: Final = f"""
WITH answer AS (
    INSERT INTO messages (id, chat_id, user_id, turn_id, role, content, status, tokens, parent_id,
                          work_tokens, brief_tokens, left_out, structured)
    SELECT $2, chat_id, user_id, id, 'assistant', $3, $4, $12, {LAST_ASKED}, $13, $14, $15,
           $16::jsonb
    FROM turns WHERE id = $1 AND $2::uuid IS NOT NULL
    RETURNING id, chat_id, turn_id, parent_id
), behind AS (
    UPDATE messages SET parent_id = answer.id FROM answer
    WHERE messages.chat_id = answer.chat_id AND messages.parent_id = answer.parent_id
      AND messages.role = 'user' AND messages.turn_id > answer.turn_id
), leaf AS (
    UPDATE chats SET updated_at = now(), leaf_id = coalesce(
        (SELECT id FROM answer WHERE answer.parent_id = chats.leaf_id), leaf_id)
    WHERE id = (SELECT chat_id FROM turns WHERE id = $1)
), due AS (
    {STORE_DUE.format(turn_id="$1", works="$17::text[]")}
)
UPDATE turns SET assistant_message_id = $2, status = $4, active = false, error_code = $5,
    error_message = $6, input_tokens = $7, output_tokens = $8, cache_read_tokens = $9,
    cache_write_tokens = $10, cost_usd = $11, finished_at = now()
WHERE id = $1 RETURNING *
"""  # noqa: S608 -- a constant of ours

# No statement of a bare end reads what people, models or tools wrote.
_GIVE_UP_CALLS_BARE: Final = """
UPDATE tool_calls SET status = 'failed', finished_at = now()
WHERE turn_id = $1 AND status NOT IN ('completed', 'failed', 'denied')
"""
_GIVE_UP_STEPS_BARE: Final = """
UPDATE steps SET status = 'cancelled', attempt = attempt + 1, updated_at = now()
WHERE turn_id = $1 AND status = 'running'
"""
_END_BARE: Final = f"""
UPDATE turns SET active = false, finished_at = now(),
    status = CASE WHEN cancel_requested_at IS NULL THEN 'failed' ELSE 'cancelled' END,
    error_code = CASE WHEN cancel_requested_at IS NULL THEN $2 END,
    error_message = CASE WHEN cancel_requested_at IS NULL THEN $3 END,
    input_tokens = spent_input, output_tokens = spent_output, cost_usd = spent_usd,
    cache_read_tokens = spent_cache_read, cache_write_tokens = spent_cache_write
FROM ({SPENT_IN_TURN}) AS spent
WHERE id = $1 AND turns.status NOT IN ('completed', 'failed', 'cancelled')
"""  # noqa: S608 -- the statement above
_BARE: Final = """
SELECT turns.*, (SELECT count(*) FROM steps WHERE turn_id = $1) AS steps,
       (SELECT count(*) FROM ledger WHERE turn_id = $1 AND kind = 'model') AS model_attempts
FROM turns WHERE id = $1
"""

_NO_ROW: Final = "UPDATE 0"
_ANSWER: Final = f"SELECT messages.*, {OUTLINE} AS outline FROM messages WHERE id = $1"  # noqa: S608 -- a column of ours

_ACTIVATE_NEXT: Final = """
WITH following AS (
    SELECT id, status FROM turns
    WHERE chat_id = $1 AND status IN ('queued', 'running', 'awaiting_approval')
    ORDER BY active DESC, id LIMIT 1
)
UPDATE turns SET active = true FROM following
WHERE turns.id = following.id AND following.status = 'queued'
RETURNING turns.*
"""


class TurnVanishedError(Exception):
    """The turn was deleted between two statements; a second try finds it gone."""

    def __init__(self) -> None:
        super().__init__("The turn was deleted while it was being ended.")


class Ended(NamedTuple):
    """A turn whose end is stored, and what is to be published of it."""

    turn: TurnReference
    output: FinishTurnOutput
    events: Sequence[EventData] = ()
    attempts: Mapping[int, int] = {}
    reached: ReachedBudgets = ()


async def _nothing(_: Connection) -> None:
    """Do nothing else in the transaction that ends a turn."""


class TurnEnding:
    """Ends turns. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, events: EventWriter, *, works: frozenset[Work]) -> None:
        self._works = works
        self._database = database
        self._events = events

    async def finish(self, ending: FinishTurnInput) -> FinishTurnOutput:
        """End the turn; return how it ended, and which turn holds the chat from now on.

        Idempotency: a turn that has ended stays as it is; its last events are published again if
        Redis doesn't have them.
        """
        _, ended = await self.store(ending, _nothing)
        return await self.publish(ended)

    async def store(
        self, ending: FinishTurnInput, work: Callable[[Connection], Awaitable[T]]
    ) -> tuple[T, Ended]:
        """Do the work and end the turn, in one transaction; what it returns is to be published.

        If either fails, nothing is stored.
        """
        turn_id = ending.turn.turn_id
        async with self._locking(ending.turn) as connection:
            done = await work(connection)
            found = await connection.fetchrow(_TURN, turn_id)
            if found is None:
                return done, Ended(ending.turn, FinishTurnOutput(outcome=_GONE))
            turn, steps = turn_row(found), [EndingStep(*step) for step in found["steps"]]
            if ending.only_if_queued and turn.status != TurnStatus.QUEUED:
                output = FinishTurnOutput(outcome=_outcome(turn, len(steps)))
                return done, Ended(ending.turn, output)
            corrections: list[EventData] = []
            due: tuple[Work, ...] = ()
            has_ended = TurnStatus(turn.status).is_final
            if has_ended:
                answer = await _stored_answer(connection, turn)
            else:
                corrections = await _give_up(connection, found, steps)
                if ending.status is TurnStatus.COMPLETED:
                    due = works_due(found, self._works, is_untitled=found["is_untitled"])
                turn, answer = await _end(connection, found, steps, ending, due=due)
            following = None
            if found["has_others"]:
                following = await activate_next(connection, ending.turn.chat_id)
        if not has_ended:
            report_end(turn, steps=len(steps), model_attempts=found["model_attempts"])
        output = FinishTurnOutput(
            outcome=_outcome(turn, len(steps)),
            plan=(turn.prompt or {}).get("plan"),
            following=following,
        )
        return done, Ended(
            ending.turn,
            output,
            events=[*corrections, *ending_events(turn, answer)],
            # The others' texts are among the corrections.
            attempts={step.step: step.attempt for step in steps if not step.is_running},
            # Those whose process died before it could publish them, or that a paid tool reached.
            reached=reached_from(found["reached"]),
        )

    def _locking(self, turn: TurnReference) -> AbstractAsyncContextManager[Connection]:
        return self._database.statements(acting_user(turn.user_id), locking=turn.chat_id)

    async def publish(self, ended: Ended) -> FinishTurnOutput:
        """Publish the last events of a turn whose end is stored; return how it ended."""
        turn, output = ended.turn, ended.output
        if ended.events:
            await self._report(turn.turn_id, ended.reached)
            news = turn_news(turn, output.outcome.status)
            await self._events.close(turn.turn_id, ended.events, attempts=ended.attempts, news=news)
        return output

    async def _report(self, turn_id: TurnId, reached: ReachedBudgets) -> None:
        """Publish the notices of budgets before the end, which may replace the rest of a stream."""
        if notices := notices_of(reached):
            with suppress(OvertakenError):
                await self._events.append(turn_id, notices)
        await mark_reported(self._database, reached)

    async def finish_bare(self, ending: FinishTurnInput) -> FinishTurnOutput:
        """End a turn as failed that its content keeps from ending: without answer or corrections.

        What was stored stays with its steps. A turn that has ended gets its last events.
        """
        turn_id, code = ending.turn.turn_id, ending.error_code or ErrorCode.INTERNAL
        async with self._locking(ending.turn) as connection:
            for statement in (LOSE_OPEN_IN_TURN, _GIVE_UP_CALLS_BARE, _GIVE_UP_STEPS_BARE):
                await connection.execute(statement, turn_id)
            ended = await connection.execute(_END_BARE, turn_id, code, TURN_MESSAGES[code])
            found = await connection.fetchrow(_BARE, turn_id)
            if found is None:
                return FinishTurnOutput(outcome=_GONE)
            following = await activate_next(connection, ending.turn.chat_id)
        turn = turn_row(found)
        if ended != _NO_ROW:
            report_end(turn, steps=found["steps"], model_attempts=found["model_attempts"])
        news = turn_news(ending.turn, TurnStatus(turn.status))
        await self._events.close(turn_id, ending_events(turn, None), news=news)
        return FinishTurnOutput(outcome=_outcome(turn, found["steps"]), following=following)


_GONE: Final = TurnOutcome(
    status=TurnStatus.CANCELLED, steps=0, usage=TokenUsage(), cost_usd=Decimal(0)
)
"""The outcome of a turn that was deleted while it ran."""


def _outcome(turn: TurnRow, steps: int) -> TurnOutcome:
    return TurnOutcome(
        status=TurnStatus(turn.status),
        error_code=None if turn.error_code is None else ErrorCode(turn.error_code),
        steps=steps,
        usage=TokenUsage.model_validate(turn, from_attributes=True),
        cost_usd=turn.cost_usd,
    )


def report_end(turn: TurnRow, *, steps: int, model_attempts: int) -> None:
    """Count a turn whose end is committed, and log it: how, for what, and in which time."""
    count_turn(turn)
    _log.info(
        "turn_ended",
        turn_id=str(turn.id),
        user_id=str(turn.user_id),
        chat_id=str(turn.chat_id),
        workflow_id=turn_workflow_id(TurnId(turn.id)),
        request_id=turn.request_id,
        status=turn.status,
        error_code=turn.error_code,
        model=turn.model,
        steps=steps,
        model_attempts=model_attempts,
        input_tokens=turn.input_tokens,
        output_tokens=turn.output_tokens,
        cache_read_tokens=turn.cache_read_tokens,
        cache_write_tokens=turn.cache_write_tokens,
        cost_usd=format_usd(turn.cost_usd),
        waited_s=seconds_between(turn.created_at, turn.started_at or turn.finished_at),
        took_s=seconds_between(turn.created_at, turn.finished_at),
    )


async def activate_next(connection: Connection, chat_id: ChatId) -> TurnReference | None:
    """Give the chat to the oldest turn that waits, unless a running one holds it.

    A turn that holds the chat but never started is returned too: starting it twice is harmless.
    """
    following = await connection.fetchrow(_ACTIVATE_NEXT, chat_id)
    return None if following is None else reference_from_row(turn_row(following))


async def _give_up(
    connection: Connection, turn: asyncpg.Record, steps: Sequence[EndingStep]
) -> list[EventData]:
    """Settle what died without a result: ledger rows, tool calls, and the text of steps.

    Clients may have received more of such a text than was stored. A new attempt with just the
    stored text clears the rest, and fences the dead one out should it wake.
    """
    if turn["some_open"]:
        await connection.execute(LOSE_OPEN_IN_TURN, turn["id"])
    corrections: list[EventData] = []
    if any(step.calls_tools for step in steps):
        given_up = await connection.fetch(_GIVE_UP_CALLS, turn["id"], _UNENDED_CALL)
        corrections += [tool_call_event(tool_call_row(call)) for call in given_up]
    for step in steps:
        if not step.is_running:
            continue
        number, attempt = step.step, step.attempt + 1
        await connection.execute(_GIVE_UP_STEP, turn["id"], number, attempt)
        corrections += await joined_events(connection, turn["id"], number)
        corrections += step_events(
            number,
            attempt=attempt,
            model=step.model,
            thinking=step.thinking or "",
            text=step.text,
        )
    return corrections


async def _end(
    connection: Connection,
    turn: asyncpg.Record,
    steps: Sequence[EndingStep],
    ending: FinishTurnInput,
    *,
    due: Sequence[Work],
) -> tuple[TurnRow, MessageOutline | None]:
    """Store the answer, the cost, the end, and what is due after it."""
    text = "".join(step.text for step in steps)
    # What the model thought and its tools did is shown, too, where nothing was said.
    is_shown = any(step.calls_tools or step.has_thought for step in steps)
    answers = bool(text) or is_shown or ending.status is TurnStatus.COMPLETED
    status, code = ending.status, ending.error_code
    # One that was about to be cancelled ends cancelled for its user.
    if status is TurnStatus.FAILED and turn["cancel_requested_at"] is not None:
        status, code = TurnStatus.CANCELLED, None
    ended = await connection.fetchrow(
        _END,
        turn["id"],
        new_id() if answers else None,
        text,
        status,
        code,
        None if code is None else ending.failure or TURN_MESSAGES[code],
        turn["spent_input"],
        turn["spent_output"],
        turn["spent_cache_read"],
        turn["spent_cache_write"],
        turn["spent_usd"],
        tokens_of(text),
        *await in_later_prompts(connection, turn["id"], steps, status=status, code=code),
        structured_value(turn, steps, status=status),
        due,
    )
    if ended is None:
        raise TurnVanishedError
    row = turn_row(ended)
    return row, await _stored_answer(connection, row) if answers else None


async def _stored_answer(connection: Connection, turn: TurnRow) -> MessageOutline | None:
    found = await connection.fetchrow(_ANSWER, turn.assistant_message_id, record_class=AttributeRow)
    return None if found is None else outline_from_row(found)
