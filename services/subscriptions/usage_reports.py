"""Owns the usage of all users as administrators see it, added up by user, model or day."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Date, cast
from sqlalchemy import select as select_columns
from sqlmodel import col, func
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import UserId
from schema.pages import InvalidCursorError, Page, PageRequest, decode_cursor, encode_cursor
from schema.subscriptions import UsageFilter, UsageGrouping, UsageRow, UsageSums
from schema.tables import LedgerRow
from schema.tables.columns import utc_now
from services.database import Database
from services.subscriptions.ledger_sums import SUMS, between, sums_from

_USUAL_RANGE: Final = timedelta(days=30)

_KEYS: Final[dict[UsageGrouping, Any]] = {
    UsageGrouping.USER: col(LedgerRow.user_id),
    UsageGrouping.MODEL: col(LedgerRow.model),
    UsageGrouping.DAY: cast(func.timezone("UTC", col(LedgerRow.created_at)), Date),
}
# Made once: to put these together took as long as a tenth of an answer.
_GROUPS: Final[dict[UsageGrouping, Any]] = {
    grouping: select_columns(key.label("key"), *SUMS).group_by(key)
    for grouping, key in _KEYS.items()
}
_TOTALS: Final[Any] = select_columns(*SUMS)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A page of the rows, and the sum of all of them."""

    rows: Page[UsageRow]
    totals: UsageSums


class UsageReports:
    """Adds the ledger up. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(self, actor: Actor, chosen: UsageFilter, page: PageRequest) -> UsageReport:
        """Return the usage that the filter leaves; days come newest first, all else in its order.

        Errors: InvalidCursorError.
        """
        where = _conditions(chosen)
        async with self._database.transaction(actor) as session:
            rows = await _read_groups(session, chosen.group_by, where, page)
            totals = (await session.exec(_TOTALS.where(*where))).one()
            return UsageReport(rows, sums_from(totals))


def _conditions(chosen: UsageFilter) -> list[ColumnElement[bool]]:
    since = chosen.since or (chosen.until or utc_now()) - _USUAL_RANGE
    conditions = between(since, chosen.until)
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
    """Read one page of groups: by their key, so that what is spent meanwhile moves none."""
    key, newest_first = _KEYS[grouping], grouping is UsageGrouping.DAY
    query = _GROUPS[grouping].where(*where)
    if page.cursor is not None:
        last = _last_key(page.cursor, grouping)
        query = query.where(key < last if newest_first else key > last)
    ordered = query.order_by(key.desc() if newest_first else key.asc())
    # One row more than asked for tells whether there is a next page.
    found = (await session.exec(ordered.limit(page.limit + 1))).all()
    shown = found[: page.limit]
    rows = [_usage_row(row, grouping) for row in shown]
    if len(found) == len(shown):
        return Page(rows, None)
    return Page(rows, encode_cursor(_order(grouping), [_plain(shown[-1].key)]))


def _usage_row(row: Any, grouping: UsageGrouping) -> UsageRow:  # noqa: ANN401 -- as `sums_from`
    counted = dict(sums_from(row))
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
    """Return the key that a cursor names. Errors: InvalidCursorError."""
    kind = UUID if grouping is UsageGrouping.USER else str
    (last,) = decode_cursor(cursor, _order(grouping), [kind])
    if grouping is not UsageGrouping.DAY:
        key: UUID | str = last
        return key
    try:
        return date.fromisoformat(last)
    except ValueError as error:
        raise InvalidCursorError from error
