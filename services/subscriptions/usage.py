"""Usage: what a user used in a period, and the ledger of all users added up for administrators."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Date, DateTime, Uuid, and_, bindparam, cast, tuple_
from sqlalchemy import select as select_columns
from sqlmodel import SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.budgets import BudgetScope
from schema.errors import NOT_A_MONTH
from schema.ids import UserId, first_id_at
from schema.pages import InvalidCursorError, Page, PageRequest, decode_cursor, encode_cursor
from schema.result import Err, Ok, Result
from schema.subscriptions import (
    Budget,
    Period,
    PeriodQuota,
    Quota,
    SubscriptionUsage,
    UsageFilter,
    UsageGrouping,
    UsageRow,
    UsageSums,
)
from schema.tables import DocumentRow, LedgerRow, MemoryRow, MessageRow, ToolCallRow, TurnRow
from schema.tables.columns import utc_now
from schema.usage import TokenUsage
from services.database import Connection, Database
from services.database.queries import CLOCK_SLACK, CompiledQuery
from services.models.pricing import Pricing
from services.resources import InvalidField
from services.subscriptions.budget_use import read_spent
from services.subscriptions.periods import period_at, period_of_month
from services.subscriptions.service import Terms, read_terms

WEB_SEARCH_MODEL: Final = "brave_search"
"""The model of ledger rows that stand for web searches."""

_DEFAULT_RANGE: Final = timedelta(days=30)
_USER: Final[Any] = bindparam("user_id", type_=Uuid)
_SINCE: Final[Any] = bindparam("since", type_=DateTime(timezone=True))
_UNTIL: Final[Any] = bindparam("until", type_=DateTime(timezone=True))

# Every turn begins with a model call, whose first attempt has one row: counting these rows counts
# turns, without the sort that distinct ids would need.
_BEGINS_A_TURN: Final = and_(
    col(LedgerRow.kind) == "model", col(LedgerRow.step) == 1, col(LedgerRow.attempt) == 1
)


def _sum(name: str) -> ColumnElement[Any]:
    return func.coalesce(func.sum(col(getattr(LedgerRow, name))), 0).label(name)


_SUMS: Final[tuple[ColumnElement[Any], ...]] = (
    func.count().label("calls"),
    func.count().filter(_BEGINS_A_TURN).label("turns"),
    *map(_sum, (*TokenUsage.model_fields, "cost_usd")),
)
"""The columns of a sum, as `_sums_from` reads them."""


def _between(since: datetime, until: datetime | None) -> list[ColumnElement[bool]]:
    """Return the conditions of a range of time."""
    created = col(LedgerRow.created_at)
    return [created >= since, *([] if until is None else [created < until])]


def _sums_from(row: Any) -> UsageSums:  # noqa: ANN401 -- a row of a query is typed by its columns
    """Return a sum; Postgres returns its tokens as decimals."""
    tokens = {name: int(getattr(row, name)) for name in TokenUsage.model_fields}
    return UsageSums(
        calls=row.calls, turns=row.turns, usage=TokenUsage(**tokens), cost_usd=row.cost_usd
    )


def _web_searches() -> ColumnElement[int]:
    """Count web searches as their quota does: all attempts of a call count as one."""
    call = (col(LedgerRow.turn_id), col(LedgerRow.step), col(LedgerRow.tool_call_id))
    return func.count(tuple_(*call).distinct()).filter(
        col(LedgerRow.kind) == "tool",
        col(LedgerRow.model) == WEB_SEARCH_MODEL,
        col(LedgerRow.status) != "failed",
    )


def _count(table: type[SQLModel]) -> ColumnElement[int]:
    """Count the rows of a user; the policies may show them those of others, too."""
    columns: Any = table
    query = select(func.count()).select_from(table).where(col(columns.user_id) == _USER)
    return query.scalar_subquery()


def _count_in_turns(
    table: type[MessageRow | ToolCallRow], *conditions: ColumnElement[bool]
) -> ColumnElement[int]:
    """Count rows of the turns of a period."""
    query = (
        select(func.count())
        .select_from(table)
        .join(TurnRow, col(TurnRow.id) == col(table.turn_id))
        .where(
            col(TurnRow.user_id) == _USER,
            col(TurnRow.id) >= bindparam("first_id", type_=Uuid),
            col(TurnRow.created_at) >= _SINCE,
            col(TurnRow.created_at) < _UNTIL,
            col(TurnRow.origin) == "asked",
            *conditions,
        )
    )
    return query.scalar_subquery()


# One statement, compiled once: seven took 5 ms of CPU. Calls in progress count with their usage so
# far; messages are those that the user sent.
_COUNTS: Final[Any] = select_columns(
    *_SUMS,
    _web_searches().label("web_searches"),
    _count(MemoryRow).label("memories"),
    _count(DocumentRow).label("documents"),
    _count_in_turns(MessageRow, col(MessageRow.role) == "user").label("messages"),
    _count_in_turns(ToolCallRow).label("tool_calls"),
).where(col(LedgerRow.user_id) == _USER, *_between(_SINCE, _UNTIL))
_USED: Final[CompiledQuery[Any]] = CompiledQuery(_COUNTS)
_CACHED_BY_MODEL: Final[Any] = (
    select_columns(
        col(LedgerRow.model).label("model"), _sum("cache_read_tokens"), _sum("cache_write_tokens")
    )
    .where(
        col(LedgerRow.user_id) == _USER,
        col(LedgerRow.cache_read_tokens) + col(LedgerRow.cache_write_tokens) > 0,
        *_between(_SINCE, _UNTIL),
    )
    .group_by(col(LedgerRow.model))
)
_CACHED: Final[CompiledQuery[Any]] = CompiledQuery(_CACHED_BY_MODEL)


class SubscriptionUsageService:
    """The usage of each user. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, pricing: Pricing) -> None:
        self._database = database
        self._pricing = pricing

    async def get(
        self, actor: Actor, *, month: str | None
    ) -> Result[SubscriptionUsage, InvalidField]:
        """Return the actor's usage in the current period, or in the one that begins in `month`.

        Errors: `InvalidField` for an invalid month.
        """
        async with self._database.statements(actor) as connection:
            terms = await read_terms(connection, actor.user_id)
            period = _period(terms, month)
            if period is None:
                return Err(InvalidField("query.period", NOT_A_MONTH))
            saved_usd = await self._saved_by_cache(connection, actor.user_id, period)
            usage = await _usage(connection, actor.user_id, terms, period)
            return Ok(usage.model_copy(update={"cache_saved_usd": saved_usd}))

    async def _saved_by_cache(
        self, connection: Connection, user_id: UserId, period: Period
    ) -> Decimal:
        since, until = period.start, period.end
        cached = await _CACHED.all(connection, user_id=user_id, since=since, until=until)
        return sum(
            (
                self._pricing.net_saved_by_cache(
                    each.model,
                    read=int(each.cache_read_tokens),
                    written=int(each.cache_write_tokens),
                )
                for each in cached
            ),
            Decimal(0),
        )


def _period(terms: Terms, month: str | None) -> Period | None:
    if month is None:
        return period_at(utc_now(), anchor=terms.anchor)
    return period_of_month(month, anchor=terms.anchor)


async def _usage(
    connection: Connection, user_id: UserId, terms: Terms, period: Period
) -> SubscriptionUsage:
    entitlements = terms.entitlements
    found: Any = await _USED.first(connection, **_parameters(user_id, period))
    spent = _sums_from(found)
    return SubscriptionUsage(
        period=period,
        usage=spent.usage,
        cost_usd=spent.cost_usd,
        cache_saved_usd=Decimal(0),
        turns=spent.turns,
        messages=found.messages,
        tool_calls=found.tool_calls,
        memories=Quota(used=found.memories, limit=entitlements.max_memories),
        documents=Quota(used=found.documents, limit=entitlements.max_documents),
        web_searches=PeriodQuota(used=found.web_searches, limit=entitlements.max_web_searches),
        budget=await _budget(connection, user_id, terms, period, cost_usd=spent.cost_usd),
    )


def _parameters(user_id: UserId, period: Period) -> dict[str, object]:
    return {
        "user_id": user_id,
        "since": period.start,
        "until": period.end,
        "first_id": first_id_at(period.start - CLOCK_SLACK),
    }


async def _budget(
    connection: Connection, user_id: UserId, terms: Terms, period: Period, *, cost_usd: Decimal
) -> Budget:
    limit_usd = terms.limits.budget_usd
    if period != period_at(utc_now(), anchor=terms.anchor):
        left_usd = None if limit_usd is None else max(limit_usd - cost_usd, Decimal(0))
        return Budget(limit_usd=limit_usd, left_usd=left_usd, day=None, month=None)
    spent = await read_spent(connection, BudgetScope.USER, [user_id], period=period)
    use = spent[user_id].against(terms.limits)
    return Budget(limit_usd=limit_usd, left_usd=use.month.usd.left, day=use.day, month=use.month)


_KEYS: Final[dict[UsageGrouping, Any]] = {
    UsageGrouping.USER: col(LedgerRow.user_id),
    UsageGrouping.MODEL: col(LedgerRow.model),
    UsageGrouping.DAY: cast(func.timezone("UTC", col(LedgerRow.created_at)), Date),
}
# Built once: building these took a tenth of the time of a report.
_GROUPS: Final[dict[UsageGrouping, Any]] = {
    grouping: select_columns(key.label("key"), *_SUMS).group_by(key)
    for grouping, key in _KEYS.items()
}
_TOTALS: Final[Any] = select_columns(*_SUMS)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A page of rows, and the sum of all rows."""

    rows: Page[UsageRow]
    totals: UsageSums


class UsageReports:
    """The usage of all users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(self, actor: Actor, chosen: UsageFilter, page: PageRequest) -> UsageReport:
        """Return the usage that matches the filter; days newest first, other keys ascending.

        Errors: InvalidCursorError.
        """
        where = _conditions(chosen)
        async with self._database.transaction(actor) as session:
            rows = await _read_groups(session, chosen.group_by, where, page)
            totals = (await session.exec(_TOTALS.where(*where))).one()
            return UsageReport(rows, _sums_from(totals))


def _conditions(chosen: UsageFilter) -> list[ColumnElement[bool]]:
    since = chosen.since or (chosen.until or utc_now()) - _DEFAULT_RANGE
    conditions = _between(since, chosen.until)
    if chosen.user_id is not None:
        conditions.append(col(LedgerRow.user_id) == chosen.user_id)
    if chosen.model is not None:
        conditions.append(col(LedgerRow.model) == chosen.model)
    return conditions


async def _read_groups(
    session: AsyncSession,
    grouping: UsageGrouping,
    where: list[ColumnElement[bool]],
    page: PageRequest,
) -> Page[UsageRow]:
    """Read one page of groups: in the order of keys, which new usage does not change."""
    key, newest_first = _KEYS[grouping], grouping is UsageGrouping.DAY
    query = _GROUPS[grouping].where(*where)
    if page.cursor is not None:
        last = _last_key(page.cursor, grouping)
        query = query.where(key < last if newest_first else key > last)
    ordered = query.order_by(key.desc() if newest_first else key.asc())
    # One extra row shows whether there is a next page.
    found = (await session.exec(ordered.limit(page.limit + 1))).all()
    shown = found[: page.limit]
    rows = [_usage_row(row, grouping) for row in shown]
    if len(found) == len(shown):
        return Page(rows, None)
    return Page(rows, encode_cursor(_order(grouping), [_plain(shown[-1].key)]))


def _usage_row(row: Any, grouping: UsageGrouping) -> UsageRow:  # noqa: ANN401 -- as `_sums_from`
    counted = dict(_sums_from(row))
    match grouping:
        case UsageGrouping.USER:
            return UsageRow(**counted, user_id=UserId(row.key))
        case UsageGrouping.MODEL:
            return UsageRow(**counted, model=row.key)
        case UsageGrouping.DAY:
            return UsageRow(**counted, day=row.key)


def _order(grouping: UsageGrouping) -> str:
    return f"usage by {grouping}"


def _plain(key: UUID | str | date) -> UUID | str:
    return key.isoformat() if isinstance(key, date) else key


def _last_key(cursor: str, grouping: UsageGrouping) -> UUID | str | date:
    """Return the key of a cursor. Errors: InvalidCursorError."""
    kind = UUID if grouping is UsageGrouping.USER else str
    (last,) = decode_cursor(cursor, _order(grouping), [kind])
    if grouping is not UsageGrouping.DAY:
        key: UUID | str = last
        return key
    try:
        return date.fromisoformat(last)
    except ValueError as error:
        raise InvalidCursorError from error
