"""Periods: months that begin where a subscription did, or with the calendar.

Pure: times in, periods out. Every time is in exactly one period of a subscription.
"""

import calendar
import re
from datetime import UTC, datetime
from typing import Final

from schema.subscriptions import Period

CALENDAR: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Where periods begin without a subscription: at midnight UTC of each first of a month."""

_MONTH: Final = re.compile(r"(2[01][0-9]{2})-(0[1-9]|1[0-2])")


def period_at(moment: datetime, *, anchor: datetime = CALENDAR) -> Period:
    """Return the period that contains the moment.

    It begins on the anchor's day at the anchor's time, or on the last day of a shorter month:
    from 31 January the next begin on 28 February, 31 March, 30 April.
    """
    moment, anchor = moment.astimezone(UTC), anchor.astimezone(UTC)
    months = (moment.year - anchor.year) * 12 + moment.month - anchor.month
    if _begin(anchor, months) > moment:
        months -= 1
    return _period(anchor, months)


def period_of_month(month: str, *, anchor: datetime = CALENDAR) -> Period | None:
    """Return the period that begins in a month, e.g. `2026-01`; None for anything else."""
    found = _MONTH.fullmatch(month)
    if found is None:
        return None
    anchor = anchor.astimezone(UTC)
    year, number = map(int, found.groups())
    return _period(anchor, (year - anchor.year) * 12 + number - anchor.month)


def _period(anchor: datetime, months: int) -> Period:
    return Period(start=_begin(anchor, months), end=_begin(anchor, months + 1))


def _begin(anchor: datetime, months: int) -> datetime:
    """Return the anchor `months` later; always counted from the anchor, so no day is lost."""
    years, month = divmod(anchor.month - 1 + months, 12)
    year = anchor.year + years
    last_day = calendar.monthrange(year, month + 1)[1]
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, last_day))
