"""Owns a step's row: who holds its newest attempt, and what the model answered.

AttemptOvertakenError    another execution holds a newer attempt, or the step is done
TurnStoppedError         the turn is to stop: nothing more is asked for it
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import acting_user
from schema.events import StepEvent
from schema.ids import TurnId
from schema.tables import LedgerRow, MessageRow, StepRow, ToolCallRow, TurnRow
from schema.tables.columns import utc_now
from schema.turns import CallModelInput, StepStatus, ToolCallStatus
from schema.usage import TokenUsage
from services.database import Database
from services.ledger import AttemptKey, ChargeStatus, Ledger

# An execution takes a step over unless the step is done, or a later attempt of the same
# activity holds it: so a worker thought dead can't take back what was given to another. The
# number counts all attempts, whichever activity or run they belong to.
_CLAIM: Final = text("""
INSERT INTO steps AS held
    (turn_id, step, user_id, attempt, run_id, activity_id, activity_attempt, model, status)
VALUES (:turn_id, :step, :user_id, 1, :run_id, :activity_id, :activity_attempt, :model, 'running')
ON CONFLICT (turn_id, step) DO UPDATE SET
    attempt = held.attempt + 1, run_id = excluded.run_id, activity_id = excluded.activity_id,
    activity_attempt = excluded.activity_attempt, model = excluded.model, status = 'running',
    text = '', blocks = '[]', stop_reason = NULL, updated_at = now()
WHERE held.status <> 'completed'
  AND ((held.run_id, held.activity_id) <> (excluded.run_id, excluded.activity_id)
       OR held.activity_attempt < excluded.activity_attempt)
RETURNING attempt
""")


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
class StepMaterial:
    """What the prompt of a step is made of."""

    messages: Sequence[MessageRow]
    steps: Sequence[StepRow]
    calls: Sequence[ToolCallRow]


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """An attempt that now holds its step."""

    key: AttemptKey
    model: str
    estimated_input: int
    material: StepMaterial

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
        async with self._database.transaction(acting_user(turn.user_id)) as session:
            attempt = await _claim(session, call, claim)
            if attempt is None:
                return await _stored(session, turn.turn_id, call.step)
            key = AttemptKey(turn.user_id, turn.turn_id, call.step, attempt)
            row = await session.get_one(TurnRow, turn.turn_id)
            if row.cancel_requested_at is not None:
                # Temporal may have been away when the wish came, and retries in its ignorance.
                raise TurnStoppedError
            estimate = sum((row.prompt or {})["tokens"].values())
            await self._ledger.open(session, key, model=call.model, input_tokens=estimate)
            material = await _material(session, row, call.step)
        return NewAttempt(key=key, model=call.model, estimated_input=estimate, material=material)

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
        async with self._database.transaction(acting_user(key.user_id)) as session:
            held = await _write(
                session,
                key,
                text=answer,
                blocks=blocks,
                stop_reason=stop_reason,
                status=StepStatus.COMPLETED,
            )
            if not held:
                raise AttemptOvertakenError
            session.add_all(
                ToolCallRow(
                    turn_id=key.turn_id,
                    step=key.step,
                    tool_call_id=request.id,
                    user_id=key.user_id,
                    position=position,
                    name=request.name,
                    input=request.input,
                    status=ToolCallStatus.REQUESTED,
                )
                for position, request in enumerate(tool_requests)
            )
            await session.flush()
            return await self._ledger.close(
                session,
                key,
                model=attempt.model,
                usage=usage,
                status=ChargeStatus.SETTLED,
                estimated=False,
            )

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


async def _claim(session: AsyncSession, call: CallModelInput, claim: Claim) -> int | None:
    connection = await session.connection()
    claimed = await connection.execute(
        _CLAIM,
        {
            "turn_id": call.turn.turn_id,
            "step": call.step,
            "user_id": call.turn.user_id,
            "run_id": claim.run_id,
            "activity_id": claim.activity_id,
            "activity_attempt": claim.activity_attempt,
            "model": call.model,
        },
    )
    return claimed.scalar_one_or_none()


async def _stored(session: AsyncSession, turn_id: TurnId, step: int) -> StoredAnswer:
    row = await session.get_one(StepRow, (turn_id, step))
    if row.status != StepStatus.COMPLETED:
        raise AttemptOvertakenError
    charge = (
        await session.exec(
            select(LedgerRow).where(
                col(LedgerRow.turn_id) == turn_id,
                col(LedgerRow.step) == step,
                col(LedgerRow.attempt) == row.attempt,
            )
        )
    ).one()
    calls = await _tool_calls(session, turn_id, before_step=step + 1)
    return StoredAnswer(
        attempt=row.attempt,
        stop_reason=row.stop_reason or "",
        tool_calls=tuple((call.tool_call_id, call.name) for call in calls if call.step == step),
        usage=TokenUsage(
            input_tokens=charge.input_tokens,
            output_tokens=charge.output_tokens,
            cache_read_tokens=charge.cache_read_tokens,
            cache_write_tokens=charge.cache_write_tokens,
        ),
        cost_usd=charge.cost_usd,
    )


async def _material(session: AsyncSession, turn: TurnRow, step: int) -> StepMaterial:
    first_turn_id = UUID((turn.prompt or {})["firstTurnId"])
    messages = await session.exec(
        select(MessageRow)
        .where(
            col(MessageRow.chat_id) == turn.chat_id,
            col(MessageRow.turn_id) >= first_turn_id,
            col(MessageRow.turn_id) <= turn.id,
        )
        .order_by(col(MessageRow.turn_id), col(MessageRow.id))
    )
    history = messages.all()
    if step == 1:
        return StepMaterial(history, (), ())
    steps = await session.exec(
        select(StepRow)
        .where(col(StepRow.turn_id) == turn.id, col(StepRow.step) < step)
        .order_by(col(StepRow.step))
    )
    calls = await _tool_calls(session, TurnId(turn.id), before_step=step)
    return StepMaterial(history, steps.all(), calls)


async def _tool_calls(
    session: AsyncSession, turn_id: TurnId, *, before_step: int
) -> Sequence[ToolCallRow]:
    query = (
        select(ToolCallRow)
        .where(col(ToolCallRow.turn_id) == turn_id, col(ToolCallRow.step) < before_step)
        .order_by(col(ToolCallRow.step), col(ToolCallRow.position))
    )
    return (await session.exec(query)).all()


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
