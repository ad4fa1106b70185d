"""Owns the ledger: one row for each attempt at a paid call, opened before it and closed after.

All functions join the caller's transaction, so that money and text are stored together.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import func, update
from sqlalchemy import select as sql_select
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.ids import TurnId, UserId, new_id
from schema.tables import LedgerRow
from schema.tables.columns import utc_now
from schema.usage import Spend, TokenUsage
from services.models.pricing import Pricing


class ChargeStatus(StrEnum):
    """How an attempt ended, as far as money goes."""

    OPEN = "open"
    SETTLED = "settled"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """What the ledger knows an attempt by."""

    user_id: UserId
    turn_id: TurnId
    step: int
    attempt: int


class Ledger:
    """Records what was asked of a provider. Units: USD."""

    def __init__(self, pricing: Pricing) -> None:
        self._pricing = pricing

    async def open(
        self, session: AsyncSession, key: AttemptKey, *, model: str, input_tokens: int
    ) -> None:
        """Open an attempt's row with an estimate, before anything is asked.

        Attempts of the step that are still open belong to processes that died: they are lost,
        and cost what was known of them.
        """
        if key.attempt > 1:
            await self._lose(session, key.turn_id, step=key.step)
        usage = TokenUsage(input_tokens=input_tokens)
        session.add(
            LedgerRow(
                id=new_id(),
                user_id=key.user_id,
                turn_id=key.turn_id,
                step=key.step,
                attempt=key.attempt,
                kind="model",
                model=model,
                input_tokens=input_tokens,
                cost_usd=self._pricing.cost(model, usage),
            )
        )
        await session.flush()

    async def note(
        self, session: AsyncSession, key: AttemptKey, *, model: str, usage: TokenUsage
    ) -> None:
        """Write down what an attempt under way is known to have used."""
        await self._write(session, key, model=model, usage=usage, status=ChargeStatus.OPEN)

    async def close(
        self,
        session: AsyncSession,
        key: AttemptKey,
        *,
        model: str,
        usage: TokenUsage,
        status: ChargeStatus,
        estimated: bool,
    ) -> Decimal:
        """Close an attempt's row and return what the attempt cost."""
        return await self._write(
            session, key, model=model, usage=usage, status=status, estimated=estimated
        )

    async def failures(self, session: AsyncSession, key: AttemptKey, *, model: str) -> int:
        """Return how many attempts of the step failed at this model."""
        query = select(func.count()).where(
            col(LedgerRow.turn_id) == key.turn_id,
            col(LedgerRow.step) == key.step,
            col(LedgerRow.kind) == "model",
            col(LedgerRow.model) == model,
            col(LedgerRow.status) == ChargeStatus.FAILED,
        )
        return (await session.exec(query)).one()

    async def total(self, session: AsyncSession, turn_id: TurnId) -> Spend:
        """Close what is still open of a turn, and return the sum of all its rows."""
        sums = [
            func.coalesce(func.sum(column), 0)
            for column in (
                LedgerRow.input_tokens,
                LedgerRow.output_tokens,
                LedgerRow.cache_read_tokens,
                LedgerRow.cache_write_tokens,
                LedgerRow.cost_usd,
            )
        ]
        is_open = func.bool_or(col(LedgerRow.status) == ChargeStatus.OPEN)
        query = sql_select(*sums, is_open).where(col(LedgerRow.turn_id) == turn_id)
        connection = await session.connection()
        found = await connection.execute(query)
        totals = found.one()
        if totals[5]:
            await self._lose(session, turn_id, step=None)
        usage = TokenUsage(
            input_tokens=int(totals[0]),
            output_tokens=int(totals[1]),
            cache_read_tokens=int(totals[2]),
            cache_write_tokens=int(totals[3]),
        )
        return Spend(usage=usage, cost_usd=Decimal(totals[4]))

    async def _lose(self, session: AsyncSession, turn_id: TurnId, *, step: int | None) -> None:
        lost = update(LedgerRow).where(
            col(LedgerRow.turn_id) == turn_id, col(LedgerRow.status) == ChargeStatus.OPEN
        )
        if step is not None:
            lost = lost.where(col(LedgerRow.step) == step)
        await session.exec(lost.values(status=ChargeStatus.LOST, settled_at=utc_now()))

    async def _write(
        self,
        session: AsyncSession,
        key: AttemptKey,
        *,
        model: str,
        usage: TokenUsage,
        status: ChargeStatus,
        estimated: bool = True,
    ) -> Decimal:
        cost = self._pricing.cost(model, usage)
        await session.exec(
            update(LedgerRow)
            .where(
                col(LedgerRow.turn_id) == key.turn_id,
                col(LedgerRow.step) == key.step,
                col(LedgerRow.attempt) == key.attempt,
                col(LedgerRow.kind) == "model",
            )
            .values(
                **usage.model_dump(),
                cost_usd=cost,
                status=status,
                estimated=estimated,
                settled_at=None if status is ChargeStatus.OPEN else utc_now(),
            )
        )
        return cost
