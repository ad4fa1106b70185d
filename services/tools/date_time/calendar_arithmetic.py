"""Owns sums and differences of moments: calendar units on the wall clock, the rest exactly."""

import calendar
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.tools.date_time.errors import OutOfRangeError
from services.tools.date_time.moments import Moment, at_wall_clock


@dataclass(frozen=True, slots=True)
class CalendarParts:
    """A difference in whole months and days and an exact rest, none negative."""

    months: int
    days: int
    rest: timedelta


def shifted(start: Moment, *, months: int, days: int, exact: timedelta) -> tuple[Moment, list[str]]:
    """Return a moment later by months, then days, then an exact duration; and what to know of it.

    Months and days keep the time on the wall clock; a month that lacks the day ends on its last.
    Errors: OutOfRangeError.
    """
    notes: list[str] = []
    moment = start
    if months or days:
        wall, month_end = _on_the_calendar(start.local, months, days)
        moment = at_wall_clock(wall, start.zone)
        notes = [note for note in (month_end, moment.note) if note is not None]
    try:
        return Moment(moment.instant + exact, start.zone), notes
    except OverflowError as error:
        raise OutOfRangeError from error


def calendar_parts(earlier: Moment, later: Moment) -> CalendarParts:
    """Return the months, days and rest that `shifted` needs to get from one to the other."""
    start, end = earlier.local, later.local
    months = (end.year - start.year) * 12 + end.month - start.month
    months -= _passes(earlier, later, months, 0)
    wall, _ = _on_the_calendar(start, months, 0)
    days = max(0, (end.date() - wall.date()).days)
    days -= _passes(earlier, later, months, days)
    reached, _ = shifted(earlier, months=months, days=days, exact=timedelta())
    return CalendarParts(months, days, later.instant - reached.instant)


def _passes(earlier: Moment, later: Moment, months: int, days: int) -> bool:
    reached, _ = shifted(earlier, months=months, days=days, exact=timedelta())
    return reached.instant > later.instant


def _on_the_calendar(start: datetime, months: int, days: int) -> tuple[datetime, str | None]:
    wall = start.replace(tzinfo=None, fold=0)
    year, month = divmod(wall.year * 12 + wall.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OutOfRangeError
    last_day = calendar.monthrange(year, month + 1)[1]
    moved = wall.replace(year=year, month=month + 1, day=min(wall.day, last_day))
    note = _month_end_note(moved, wall.day) if wall.day > last_day else None
    try:
        return moved + timedelta(days=days), note
    except OverflowError as error:
        raise OutOfRangeError from error


def _month_end_note(moved: datetime, wanted_day: int) -> str:
    return f"{moved:%B} {moved.year} has no day {wanted_day}: its last day was used."
