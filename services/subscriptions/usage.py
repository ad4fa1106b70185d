"""Owns what a user has used in a period of their subscription."""

from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ColumnElement, DateTime, Uuid, bindparam, tuple_
from sqlalchemy import select as select_columns
from sqlmodel import SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import UserId, first_id_at
from schema.result import Err, Ok, Result
from schema.subscriptions import (
    Budget,
    Period,
    PeriodQuota,
    Quota,
    SubscriptionUsage,
)
from schema.tables import DocumentRow, LedgerRow, MemoryRow, MessageRow, ToolCallRow, TurnRow
from schema.tables.columns import utc_now
from services.database import Database
from services.database.queries import CLOCK_SLACK
from services.resources import InvalidField
from services.subscriptions.ledger_sums import SUMS, between, sums_from
from services.subscriptions.periods import period_at, period_of_month
from services.subscriptions.service import Terms, read_terms

WEB_SEARCH_MODEL: Final = "brave_search"
"""What ledger rows of admitted web searches name as their model."""

_USER: Final[Any] = bindparam("user_id", type_=Uuid)
_SINCE: Final[Any] = bindparam("since", type_=DateTime(timezone=True))
_UNTIL: Final[Any] = bindparam("until", type_=DateTime(timezone=True))


def _web_searches() -> ColumnElement[int]:
    """Count searches of the web as their quota does: the attempts of a call are one."""
    call = (col(LedgerRow.turn_id), col(LedgerRow.step), col(LedgerRow.tool_call_id))
    return func.count(tuple_(*call).distinct()).filter(
        col(LedgerRow.kind) == "tool",
        col(LedgerRow.model) == WEB_SEARCH_MODEL,
        col(LedgerRow.status) != "failed",
    )


def _count(table: type[SQLModel]) -> ColumnElement[int]:
    """Count what is a user's; the policies may show them things of others, too."""
    columns: Any = table
    query = select(func.count()).select_from(table).where(col(columns.user_id) == _USER)
    return query.scalar_subquery()


def _count_in_turns(
    table: type[MessageRow | ToolCallRow], *conditions: ColumnElement[bool]
) -> ColumnElement[int]:
    """Count what belongs to the turns of a period."""
    query = (
        select(func.count())
        .select_from(table)
        .join(TurnRow, col(TurnRow.id) == col(table.turn_id))
        .where(
            col(TurnRow.user_id) == _USER,
            col(TurnRow.id) >= bindparam("first_id", type_=Uuid),
            col(TurnRow.created_at) >= _SINCE,
            col(TurnRow.created_at) < _UNTIL,
            *conditions,
        )
    )
    return query.scalar_subquery()


# One statement, made once: seven took 5 ms of CPU. Calls under way count as they stand; of
# messages, those that the user sent.
_USED: Final[Any] = select_columns(
    *SUMS,
    _web_searches().label("web_searches"),
    _count(MemoryRow).label("memories"),
    _count(DocumentRow).label("documents"),
    _count_in_turns(MessageRow, col(MessageRow.role) == "user").label("messages"),
    _count_in_turns(ToolCallRow).label("tool_calls"),
).where(col(LedgerRow.user_id) == _USER, *between(_SINCE, _UNTIL))


class SubscriptionUsageService:
    """Adds up what users have used. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(
        self, actor: Actor, *, month: str | None
    ) -> Result[SubscriptionUsage, InvalidField]:
        """Return the actor's usage in the running period, or in the one that begins in `month`.

        Errors: `InvalidField` for what is no month.
        """
        async with self._database.transaction(actor) as session:
            terms = await read_terms(session, actor.user_id)
            period = _period(terms, month)
            if period is None:
                return Err(InvalidField("query.period", "This is not a month, as `2026-01`."))
            return Ok(await _usage(session, actor.user_id, terms, period))


def _period(terms: Terms, month: str | None) -> Period | None:
    if month is None:
        return period_at(utc_now(), anchor=terms.anchor)
    return period_of_month(month, anchor=terms.anchor)


async def _usage(
    session: AsyncSession, user_id: UserId, terms: Terms, period: Period
) -> SubscriptionUsage:
    entitlements = terms.entitlements
    found = (await session.exec(_USED, params=_of(user_id, period))).one()
    spent = sums_from(found)
    return SubscriptionUsage(
        period=period,
        usage=spent.usage,
        cost_usd=spent.cost_usd,
        turns=spent.turns,
        messages=found.messages,
        tool_calls=found.tool_calls,
        memories=Quota(used=found.memories, limit=entitlements.max_memories),
        documents=Quota(used=found.documents, limit=entitlements.max_documents),
        web_searches=PeriodQuota(used=found.web_searches, limit=entitlements.max_web_searches),
        budget=_budget(entitlements.budget_usd, spent.cost_usd),
    )


def _of(user_id: UserId, period: Period) -> dict[str, object]:
    return {
        "user_id": user_id,
        "since": period.start,
        "until": period.end,
        "first_id": first_id_at(period.start - CLOCK_SLACK),
    }


def _budget(limit_usd: Decimal | None, cost_usd: Decimal) -> Budget:
    left_usd = None if limit_usd is None else max(limit_usd - cost_usd, Decimal(0))
    return Budget(limit_usd=limit_usd, left_usd=left_usd)
