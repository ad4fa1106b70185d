"""What was spent of budgets, for people to read: by users, API keys, the installation.

Sums come from `usage_days`, which triggers on the ledger keep. A month that begins within a day
leaves out what the ledger has of that day before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
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

_SUMS: Final = """
SELECT {day_columns}, {month_columns}
FROM usage_days
WHERE scope = $1 AND subject_id = subject.id AND day >= least($3::date, $4::date)
"""
_EARLIER: Final = """
SELECT coalesce(sum(charged_usd), 0) AS charged_usd,
       coalesce(sum(charged_tokens), 0) AS charged_tokens,
       coalesce(sum(charged_usd) FILTER (WHERE status <> 'open'), 0) AS settled_usd,
       coalesce(sum(charged_tokens) FILTER (WHERE status <> 'open'), 0) AS settled_tokens
FROM ledger WHERE {column} = subject.id AND created_at >= $5 AND created_at < $6
"""
_NAMES: Final = ("charged_usd", "charged_tokens", "settled_usd", "settled_tokens")


def _sums(prefix: str, condition: str) -> str:
    return ", ".join(
        f"coalesce(sum({name}) FILTER (WHERE {condition}), 0) AS {prefix}_{name}" for name in _NAMES
    )


def _query(column: str) -> str:
    days = _SUMS.format(
        day_columns=_sums("day", "day = $3"), month_columns=_sums("month", "day >= $4")
    )
    month = ", ".join(f"month_{name} - earlier.{name} AS month_{name}" for name in _NAMES)
    return f"""
SELECT subject.id, {", ".join(f"day_{name}" for name in _NAMES)}, {month}
FROM unnest($2::uuid[]) AS subject (id)
CROSS JOIN LATERAL ({days}) AS days
CROSS JOIN LATERAL ({_EARLIER.format(column=column)}) AS earlier
"""  # noqa: S608 -- names of columns alone


_OF_ALL_USERS: Final = f"""
SELECT {_sums("day", "day = $1::date")}, {_sums("month", "day >= $2::date")}
FROM usage_days WHERE scope = 'user' AND day >= least($1::date, $2::date)
"""  # noqa: S608 -- as above
# The installation's months begin at midnight: the range of its earlier rows is empty.
_QUERIES: Final = {
    BudgetScope.USER: _query("user_id"),
    BudgetScope.API_KEY: _query("api_key_id"),
    BudgetScope.INSTALLATION: _query("user_id"),
}


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
    """What one subject has spent: of USD and tokens, with running calls and without."""

    charged_usd: Decimal = Decimal(0)
    charged_tokens: int = 0
    settled_usd: Decimal = Decimal(0)
    settled_tokens: int = 0


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
    today = _today()
    midnight = _midnight(period.start)
    rows = await connection.fetch(
        _QUERIES[scope],
        scope.value,
        subjects,
        today.start.date(),
        midnight.date(),
        midnight,
        period.start,
    )
    return {
        row["id"]: SpentInWindows(_spent(row, "day"), _spent(row, "month"), today, period)
        for row in rows
    }


async def read_installation(connection: Connection, *, is_counted: bool) -> SpentInWindows:
    """Return what all users together have spent today and in this month of the calendar.

    Without a budget (`is_counted`) their own days are added up, without those of deleted users.
    """
    today, month = _today(), period_at(utc_now())
    subject = [INSTALLATION]
    if is_counted:
        found = await read_spent(connection, BudgetScope.INSTALLATION, subject, period=month)
        return found[INSTALLATION]
    (row,) = await connection.fetch(_OF_ALL_USERS, today.start.date(), month.start.date())
    return SpentInWindows(_spent(row, "day"), _spent(row, "month"), today, month)


def _today() -> Period:
    midnight = _midnight(utc_now())
    return Period(start=midnight, end=midnight + timedelta(days=1))


def _midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.astimezone(UTC).date(), time.min, UTC)


def _spent(row: asyncpg.Record, window: str) -> Spent:
    """Return the sums of a window; Postgres adds tokens up as decimals."""
    values: dict[str, Any] = {name: row[f"{window}_{name}"] for name in _NAMES}
    return Spent(
        charged_usd=values["charged_usd"],
        charged_tokens=int(values["charged_tokens"]),
        settled_usd=values["settled_usd"],
        settled_tokens=int(values["settled_tokens"]),
    )


def _window(window: Period, spent: Spent, *, usd: Decimal | None, tokens: int | None) -> WindowUse:
    return WindowUse(
        starts_at=window.start,
        resets_at=window.end,
        usd=MoneyUse(
            limit=usd,
            used=spent.settled_usd,
            reserved=spent.charged_usd - spent.settled_usd,
            left=None if usd is None else max(usd - spent.charged_usd, Decimal(0)),
        ),
        tokens=TokenUse(
            limit=tokens,
            used=spent.settled_tokens,
            reserved=spent.charged_tokens - spent.settled_tokens,
            left=None if tokens is None else max(tokens - spent.charged_tokens, 0),
        ),
    )
