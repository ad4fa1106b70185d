"""Owns a step's row: who holds its newest attempt, and what the model answered.

AttemptOvertakenError    another execution holds a newer attempt, or the step is done
TurnStoppedError         the turn is to stop: nothing more is asked for it
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import acting_user
from schema.events import StepEvent
from schema.ids import TurnId, new_id
from schema.tables import StepRow
from schema.tables.columns import utc_now
from schema.turns import CallModelInput, StepStatus
from schema.usage import TokenUsage
from services.database import Connection, Database
from services.ledger import AttemptKey, ChargeStatus, Ledger
from services.prompts.conversation import (
    EarlierCall,
    EarlierStep,
    PromptMaterial,
    SaidMessage,
)

# An execution takes a step over unless the step is done, or a later attempt of the same
# activity holds it: so a worker thought dead can't take back what was given to another. The
# number counts all attempts, whichever activity or run they belong to. With the step its row in
# the ledger is opened, before anything is asked. A turn that is to stop claims nothing.
_BEGIN: Final = """
WITH turn AS (
    SELECT cancel_requested_at IS NOT NULL AS is_to_stop FROM turns WHERE id = $1
), claimed AS (
    INSERT INTO steps AS held
        (turn_id, step, user_id, attempt, run_id, activity_id, activity_attempt, model, status)
    SELECT $1, $2, $3, 1, $4, $5, $6, $7, 'running' FROM turn WHERE NOT is_to_stop
    ON CONFLICT (turn_id, step) DO UPDATE SET
        attempt = held.attempt + 1, run_id = excluded.run_id,
        activity_id = excluded.activity_id, activity_attempt = excluded.activity_attempt,
        model = excluded.model, status = 'running', text = '', blocks = '[]',
        stop_reason = NULL, updated_at = now()
    WHERE held.status <> 'completed'
      AND ((held.run_id, held.activity_id) <> (excluded.run_id, excluded.activity_id)
           OR held.activity_attempt < excluded.activity_attempt)
    RETURNING attempt
), charge AS (
    INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status, estimated,
                        input_tokens, cost_usd)
    SELECT $8, $3, $1, $2, attempt, 'model', $7, 'open', true, $9, $10 FROM claimed
)
SELECT turn.is_to_stop, claimed.attempt FROM turn LEFT JOIN claimed ON true
"""

# Attempts of the step that are still open belong to processes that died: what they cost is what
# was known of them.
_LOSE_OLDER: Final = """
UPDATE ledger SET status = 'lost', settled_at = now()
WHERE turn_id = $1 AND step = $2 AND attempt < $3 AND status = 'open'
"""

_HISTORY: Final = """
SELECT role, content FROM messages
WHERE chat_id = $1 AND turn_id <= $2
  AND turn_id >= (SELECT (prompt ->> 'firstTurnId')::uuid FROM turns WHERE id = $2)
ORDER BY turn_id, id
"""

_STEPS_BEFORE: Final = (
    "SELECT step, blocks FROM steps WHERE turn_id = $1 AND step < $2 ORDER BY step"
)

_CALLS_BEFORE: Final = """
SELECT step, tool_call_id, name, status, output FROM tool_calls
WHERE turn_id = $1 AND step < $2 ORDER BY step, position
"""

_STORED: Final = """
SELECT steps.status, steps.attempt, steps.stop_reason, ledger.input_tokens, ledger.output_tokens,
       ledger.cache_read_tokens, ledger.cache_write_tokens, ledger.cost_usd
FROM steps JOIN ledger USING (turn_id, step, attempt)
WHERE turn_id = $1 AND step = $2 AND ledger.kind = 'model'
"""

# Money and text are stored together, and only by the attempt that holds the step.
_COMPLETE: Final = """
WITH held AS (
    UPDATE steps SET status = 'completed', text = $4, blocks = $5, stop_reason = $6,
                     updated_at = now()
    WHERE turn_id = $1 AND step = $2 AND attempt = $3 AND status = 'running'
    RETURNING turn_id, step, attempt
)
UPDATE ledger SET status = 'settled', estimated = false, settled_at = now(), input_tokens = $7,
                  output_tokens = $8, cache_read_tokens = $9, cache_write_tokens = $10,
                  cost_usd = $11
FROM held
WHERE ledger.turn_id = held.turn_id AND ledger.step = held.step
  AND ledger.attempt = held.attempt AND ledger.kind = 'model'
RETURNING ledger.id
"""

_REQUEST_TOOL: Final = """
INSERT INTO tool_calls (turn_id, step, tool_call_id, user_id, position, name, input, status)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'requested')
"""


class AttemptOvertakenError(Exception):
    """This execution does not hold the step's newest attempt; it must stop."""

    def __init__(self) -> None:
        super().__init__("Another execution has taken this step over.")


class TurnStoppedError(Exception):
    """Somebody wants the turn to stop, so the model is not asked again."""

    def __init__(self) -> None:
        super().__init__("The turn is to stop.")


@dataclass(frozen=True, slots=True)
class Claim:
    """Which execution of which activity wants to run the step."""

    run_id: str
    activity_id: str
    activity_attempt: int


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a step that is done came to."""

    attempt: int
    stop_reason: str
    tool_calls: tuple[tuple[str, str], ...]
    usage: TokenUsage
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """An attempt that now holds its step."""

    key: AttemptKey
    model: str
    estimated_input: int
    material: PromptMaterial

    @property
    def start(self) -> StepEvent:
        """The event that tells clients of the attempt."""
        return StepEvent(step=self.key.step, attempt=self.key.attempt, model=self.model)


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool call as the model asked for it."""

    id: str
    name: str
    input: dict[str, Any]


class Steps:
    """Keeps the steps of turns. Every method is one transaction as the turn's user.

    Errors: DatabaseUnavailableError.
    """

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    async def begin(self, call: CallModelInput, claim: Claim) -> NewAttempt | StoredAnswer:
        """Take the step over and open its ledger row, or return what is already stored.

        Errors: AttemptOvertakenError; TurnStoppedError, which leaves what was said before.
        """
        turn = call.turn
        cost_usd = self._ledger.cost(call.model, TokenUsage(input_tokens=call.prompt_tokens))
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            begun = await connection.fetchrow(
                _BEGIN,
                turn.turn_id,
                call.step,
                turn.user_id,
                claim.run_id,
                claim.activity_id,
                claim.activity_attempt,
                call.model,
                new_id(),
                call.prompt_tokens,
                cost_usd,
            )
            if begun is None or begun["is_to_stop"]:
                # Temporal may have been away when the wish came, and retries in its ignorance.
                raise TurnStoppedError
            if begun["attempt"] is None:
                return await _stored(connection, turn.turn_id, call.step)
            if begun["attempt"] > 1:
                await connection.execute(_LOSE_OLDER, turn.turn_id, call.step, begun["attempt"])
            material = await _material(connection, call)
        return NewAttempt(
            key=AttemptKey(turn.user_id, turn.turn_id, call.step, begun["attempt"]),
            model=call.model,
            estimated_input=call.prompt_tokens,
            material=material,
        )

    async def checkpoint(self, attempt: NewAttempt, *, answer: str, usage: TokenUsage) -> None:
        """Keep what an attempt under way has said and used, for the case that it dies."""
        key = attempt.key
        async with self._database.transaction(acting_user(key.user_id)) as session:
            if await _write(session, key, text=answer):
                await self._ledger.note(session, key, model=attempt.model, usage=usage)

    async def complete(
        self,
        attempt: NewAttempt,
        *,
        answer: str,
        blocks: list[dict[str, Any]],
        stop_reason: str,
        tool_requests: Sequence[ToolRequest],
        usage: TokenUsage,
    ) -> Decimal:
        """Store the model's answer, its tool calls and its cost, which is returned.

        Errors: AttemptOvertakenError.
        """
        key = attempt.key
        cost_usd = self._ledger.cost(attempt.model, usage)
        async with self._database.statements(acting_user(key.user_id)) as connection:
            held = await connection.fetchrow(
                _COMPLETE,
                key.turn_id,
                key.step,
                key.attempt,
                answer,
                blocks,
                stop_reason,
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                cost_usd,
            )
            if held is None:
                raise AttemptOvertakenError
            if tool_requests:
                await connection.executemany(_REQUEST_TOOL, _rows_of(key, tool_requests))
        return cost_usd

    async def abandon(
        self, attempt: NewAttempt, *, answer: str, usage: TokenUsage, failed: bool, estimated: bool
    ) -> int:
        """Store what an attempt came to that failed or was stopped.

        Returns how many attempts of the step have failed at this model.
        """
        key = attempt.key
        async with self._database.transaction(acting_user(key.user_id)) as session:
            await _write(
                session,
                key,
                text=answer,
                status=StepStatus.FAILED if failed else StepStatus.CANCELLED,
            )
            await self._ledger.close(
                session,
                key,
                model=attempt.model,
                usage=usage,
                status=ChargeStatus.FAILED if failed else ChargeStatus.CANCELLED,
                estimated=estimated,
            )
            return await self._ledger.failures(session, key, model=attempt.model)


async def _stored(connection: Connection, turn_id: TurnId, step: int) -> StoredAnswer:
    row = await connection.fetchrow(_STORED, turn_id, step)
    if row is None or row["status"] != StepStatus.COMPLETED:
        raise AttemptOvertakenError
    calls = await connection.fetch(_CALLS_BEFORE, turn_id, step + 1)
    return StoredAnswer(
        attempt=row["attempt"],
        stop_reason=row["stop_reason"] or "",
        tool_calls=tuple(
            (call["tool_call_id"], call["name"]) for call in calls if call["step"] == step
        ),
        usage=TokenUsage(
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
            cache_read_tokens=row["cache_read_tokens"],
            cache_write_tokens=row["cache_write_tokens"],
        ),
        cost_usd=row["cost_usd"],
    )


async def _material(connection: Connection, call: CallModelInput) -> PromptMaterial:
    turn = call.turn
    history = await connection.fetch(_HISTORY, turn.chat_id, turn.turn_id)
    said = [SaidMessage(row["role"], row["content"]) for row in history]
    if call.step == 1:
        return PromptMaterial(said)
    steps = await connection.fetch(_STEPS_BEFORE, turn.turn_id, call.step)
    calls = await connection.fetch(_CALLS_BEFORE, turn.turn_id, call.step)
    return PromptMaterial(
        said,
        [EarlierStep(row["step"], row["blocks"]) for row in steps],
        [
            EarlierCall(row["step"], row["tool_call_id"], row["status"], row["output"])
            for row in calls
        ],
    )


def _rows_of(key: AttemptKey, requests: Sequence[ToolRequest]) -> list[tuple[object, ...]]:
    return [
        (key.turn_id, key.step, request.id, key.user_id, position, request.name, request.input)
        for position, request in enumerate(requests)
    ]


async def _write(session: AsyncSession, key: AttemptKey, **values: object) -> bool:
    """Write to the step if this attempt still holds it; say whether it does."""
    written = await session.exec(
        update(StepRow)
        .where(
            col(StepRow.turn_id) == key.turn_id,
            col(StepRow.step) == key.step,
            col(StepRow.attempt) == key.attempt,
            col(StepRow.status) == StepStatus.RUNNING,
        )
        .values(**values, updated_at=utc_now())
    )
    return written.rowcount == 1
