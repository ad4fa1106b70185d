"""What was spent of budgets, for people to read: by users, API keys, the installation.

Sums come from `usage_days`, which triggers on the ledger keep; what running calls reserve comes
from the ledger. A month that begins within a day leaves out what the ledger has of that day before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

import asyncpg

from schema.budgets import (
    BudgetExceeded,
    BudgetLimits,
    BudgetScope,
    BudgetUnit,
    BudgetUse,
    BudgetWindow,
    MoneyUse,
    TokenUse,
    WindowUse,
)
from schema.subscriptions import Period
from schema.tables.columns import utc_now
from services.database import Connection
from services.subscriptions.periods import period_at

INSTALLATION: Final = UUID(int=0)
"""The subject of the installation's budget."""

# $1 is the scope, $2 its subjects, $3 midnight, $4 the midnight before the period's start, $5 that.
_SETTLED: Final = """
SELECT coalesce(sum(settled_usd) FILTER (WHERE day = today), 0) AS day_usd,
       coalesce(sum(settled_tokens) FILTER (WHERE day = today), 0) AS day_tokens,
       coalesce(sum(settled_usd) FILTER (WHERE day >= first_day), 0) AS usd,
       coalesce(sum(settled_tokens) FILTER (WHERE day >= first_day), 0) AS tokens
FROM usage_days WHERE {of_subject} AND day >= least(today, first_day)
"""
_EARLIER: Final = """
SELECT coalesce(sum(charged_usd), 0) AS usd, coalesce(sum(charged_tokens), 0) AS tokens
FROM ledger WHERE {of_subject} AND status <> 'open' AND created_at >= $4 AND created_at < $5
"""
_RESERVED: Final = """
SELECT coalesce(sum(charged_usd) FILTER (WHERE created_at >= $3), 0) AS day_usd,
       coalesce(sum(charged_tokens) FILTER (WHERE created_at >= $3), 0) AS day_tokens,
       coalesce(sum(charged_usd) FILTER (WHERE created_at >= $5), 0) AS usd,
       coalesce(sum(charged_tokens) FILTER (WHERE created_at >= $5), 0) AS tokens
FROM ledger WHERE {of_subject} AND status = 'open'
"""


def _query(*, days: str, charges: str) -> str:
    """Return the query of sums; the conditions say which days and charges are the subject's."""
    settled = _SETTLED.format(of_subject=days)
    earlier = _EARLIER.format(of_subject=charges)
    reserved = _RESERVED.format(of_subject=charges)
    return f"""
SELECT subject.id, settled.day_usd AS day_used_usd, settled.day_tokens AS day_used_tokens,
       settled.usd - earlier.usd AS month_used_usd,
       settled.tokens - earlier.tokens AS month_used_tokens,
       reserved.day_usd AS day_reserved_usd, reserved.day_tokens AS day_reserved_tokens,
       reserved.usd AS month_reserved_usd, reserved.tokens AS month_reserved_tokens
FROM unnest($2::uuid[]) AS subject (id)
CROSS JOIN LATERAL (
    SELECT ($3::timestamptz AT TIME ZONE 'UTC')::date AS today,
           ($4::timestamptz AT TIME ZONE 'UTC')::date AS first_day
) AS dates
CROSS JOIN LATERAL ({settled}) AS settled
CROSS JOIN LATERAL ({earlier}) AS earlier
CROSS JOIN LATERAL ({reserved}) AS reserved
"""  # noqa: S608 -- conditions of our own


_DAYS_OF_SUBJECT: Final = "scope = $1 AND subject_id = subject.id"
_QUERIES: Final = {
    BudgetScope.USER: _query(days=_DAYS_OF_SUBJECT, charges="user_id = subject.id"),
    BudgetScope.API_KEY: _query(days=_DAYS_OF_SUBJECT, charges="api_key_id = subject.id"),
    # Its months begin at midnight: the range of its earlier rows is empty.
    BudgetScope.INSTALLATION: _query(days=_DAYS_OF_SUBJECT, charges="true"),
}
_OF_ALL_USERS: Final = _query(days="scope = 'user' AND $1 <> 'user'", charges="true")


def exhausted_budget(*, user: str, api_key: str) -> str:
    """Return the query for the budget that has nothing left, of several the last to reset.

    `user` and `api_key` are parameters. For a statement that needs a row, if only of nulls, it is
    joined from the left.
    """
    return f"""
SELECT scope AS budget_scope, unit AS budget_unit, period AS budget_window,
       resets_at AS budget_resets_at
FROM everturn_budgets({user}::uuid, {api_key}::uuid) WHERE charged >= allowed
ORDER BY resets_at DESC LIMIT 1
"""  # noqa: S608 -- parameters


def exceeded_budget(row: asyncpg.Record) -> BudgetExceeded | None:
    """Return the refusal in a row with the columns of `exhausted_budget`, if there is one."""
    if row["budget_scope"] is None:
        return None
    return BudgetExceeded(
        scope=BudgetScope(row["budget_scope"]),
        unit=BudgetUnit(row["budget_unit"]),
        window=BudgetWindow(row["budget_window"]),
        resets_at=row["budget_resets_at"],
    )


@dataclass(frozen=True, slots=True)
class Spent:
    """What one subject has spent of USD and tokens, and what its running calls reserve."""

    used_usd: Decimal = Decimal(0)
    used_tokens: int = 0
    reserved_usd: Decimal = Decimal(0)
    reserved_tokens: int = 0


@dataclass(frozen=True, slots=True)
class SpentInWindows:
    """What one subject has spent in the current day and month."""

    day: Spent
    month: Spent
    today: Period
    period: Period

    def against(self, limits: BudgetLimits) -> BudgetUse:
        """Return it beside the limits."""
        return BudgetUse(
            day=_window(
                self.today, self.day, usd=limits.daily_budget_usd, tokens=limits.daily_budget_tokens
            ),
            month=_window(
                self.period, self.month, usd=limits.budget_usd, tokens=limits.budget_tokens
            ),
        )


async def read_spent(
    connection: Connection, scope: BudgetScope, subjects: Sequence[UUID], *, period: Period
) -> Mapping[UUID, SpentInWindows]:
    """Return what each of the subjects has spent today and in the current period."""
    return await _read(connection, _QUERIES[scope], scope, subjects, period=period)


async def read_installation(connection: Connection, *, is_counted: bool) -> SpentInWindows:
    """Return what all users together have spent today and in this month of the calendar.

    Without a budget (`is_counted`) their own days are added up, without those of deleted users.
    """
    scope = BudgetScope.INSTALLATION
    query = _QUERIES[scope] if is_counted else _OF_ALL_USERS
    month = period_at(utc_now())
    found = await _read(connection, query, scope, [INSTALLATION], period=month)
    return found[INSTALLATION]


async def _read(
    connection: Connection,
    query: str,
    scope: BudgetScope,
    subjects: Sequence[UUID],
    *,
    period: Period,
) -> Mapping[UUID, SpentInWindows]:
    today, midnight = _today(), _midnight(period.start)
    rows = await connection.fetch(query, scope.value, subjects, today.start, midnight, period.start)
    return {
        row["id"]: SpentInWindows(_spent(row, "day"), _spent(row, "month"), today, period)
        for row in rows
    }


def _today() -> Period:
    midnight = _midnight(utc_now())
    return Period(start=midnight, end=midnight + timedelta(days=1))


def _midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.astimezone(UTC).date(), time.min, UTC)


def _spent(row: asyncpg.Record, window: str) -> Spent:
    """Return the sums of a window; Postgres adds tokens up as decimals."""
    return Spent(
        used_usd=row[f"{window}_used_usd"],
        used_tokens=int(row[f"{window}_used_tokens"]),
        reserved_usd=row[f"{window}_reserved_usd"],
        reserved_tokens=int(row[f"{window}_reserved_tokens"]),
    )


def _window(window: Period, spent: Spent, *, usd: Decimal | None, tokens: int | None) -> WindowUse:
    return WindowUse(
        starts_at=window.start,
        resets_at=window.end,
        usd=MoneyUse(
            limit=usd,
            used=spent.used_usd,
            reserved=spent.reserved_usd,
            left=None
            if usd is None
            else max(usd - spent.used_usd - spent.reserved_usd, Decimal(0)),
        ),
        tokens=TokenUse(
            limit=tokens,
            used=spent.used_tokens,
            reserved=spent.reserved_tokens,
            left=None
            if tokens is None
            else max(tokens - spent.used_tokens - spent.reserved_tokens, 0),
        ),
    )
