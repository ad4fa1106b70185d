"""Owns the ledger: one row for each attempt at a paid call, opened before it and closed after.

All functions join the caller's transaction, so that money and text are stored together.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.ids import TurnId, UserId
from schema.tables import LedgerRow
from schema.tables.columns import utc_now
from schema.usage import TokenUsage
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

    def cost(self, model: str, usage: TokenUsage) -> Decimal:
        """Return what the tokens cost.

        Errors: UnknownPriceError.
        """
        return self._pricing.cost(model, usage)

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
