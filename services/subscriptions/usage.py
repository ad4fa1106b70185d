"""Owns what a user has used in a period of their subscription."""

from decimal import Decimal
from typing import Any

from sqlalchemy import select as select_columns
from sqlmodel import SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import UserId, first_id_at
from schema.result import Err, Ok, Result
from schema.subscriptions import Budget, Period, Quota, SubscriptionUsage, UsageSums
from schema.tables import DocumentRow, LedgerRow, MemoryRow, MessageRow, ToolCallRow, TurnRow
from schema.tables.columns import utc_now
from services.database import Database
from services.database.time_ranges import CLOCK_SLACK
from services.subscriptions.ledger_sums import between, sums, sums_from
from services.subscriptions.periods import period_at, period_of_month
from services.subscriptions.service import Terms, read_terms


class SubscriptionUsageService:
    """Adds up what users have used. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, actor: Actor, *, month: str | None) -> Result[SubscriptionUsage, str]:
        """Return the actor's usage in the running period, or in the one that begins in `month`.

        Errors: a sentence for what is no month.
        """
        async with self._database.transaction(actor) as session:
            terms = await read_terms(session, actor.user_id)
            period = _period(terms, month)
            if period is None:
                return Err("This is not a month, as `2026-01`.")
            return Ok(await _usage(session, actor.user_id, terms, period))


def _period(terms: Terms, month: str | None) -> Period | None:
    if month is None:
        return period_at(utc_now(), anchor=terms.anchor)
    return period_of_month(month, anchor=terms.anchor)


async def _usage(
    session: AsyncSession, user_id: UserId, terms: Terms, period: Period
) -> SubscriptionUsage:
    entitlements = terms.entitlements
    spent = await spent_in(session, user_id, period)
    memories = await _count(session, MemoryRow, user_id)
    documents = await _count(session, DocumentRow, user_id)
    return SubscriptionUsage(
        period=period,
        usage=spent.usage,
        cost_usd=spent.cost_usd,
        turns=spent.turns,
        messages=await _count_in_turns(session, MessageRow, user_id, period),
        tool_calls=await _count_in_turns(session, ToolCallRow, user_id, period),
        memories=Quota(used=memories, limit=entitlements.max_memories),
        documents=Quota(used=documents, limit=entitlements.max_documents),
        budget=_budget(entitlements.budget_usd, spent.cost_usd),
    )


async def spent_in(session: AsyncSession, user_id: UserId, period: Period) -> UsageSums:
    """Return what a user has spent in a period; calls under way count as they stand."""
    query: Any = select_columns(*sums()).where(
        col(LedgerRow.user_id) == user_id, *between(period.start, period.end)
    )
    return sums_from((await session.exec(query)).one())


def _budget(limit_usd: Decimal | None, cost_usd: Decimal) -> Budget:
    left_usd = None if limit_usd is None else max(limit_usd - cost_usd, Decimal(0))
    return Budget(limit_usd=limit_usd, left_usd=left_usd)


async def _count(session: AsyncSession, table: type[SQLModel], user_id: UserId) -> int:
    """Count what is a user's; the policies may show them things of others, too."""
    columns: Any = table
    query = select(func.count()).select_from(table).where(col(columns.user_id) == user_id)
    return (await session.exec(query)).one()


async def _count_in_turns(
    session: AsyncSession,
    table: type[MessageRow | ToolCallRow],
    user_id: UserId,
    period: Period,
) -> int:
    """Count what belongs to the turns of a period; of messages, those that the user sent."""
    query = (
        select(func.count())
        .select_from(table)
        .join(TurnRow, col(TurnRow.id) == col(table.turn_id))
        .where(
            col(TurnRow.user_id) == user_id,
            col(TurnRow.id) >= first_id_at(period.start - CLOCK_SLACK),
            col(TurnRow.created_at) >= period.start,
            col(TurnRow.created_at) < period.end,
        )
    )
    if table is MessageRow:
        query = query.where(col(MessageRow.role) == "user")
    return (await session.exec(query)).one()
