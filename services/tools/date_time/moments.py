"""Moments: how a text or a wall clock becomes an instant, sums and differences, and the output.

Instants are compared and subtracted in UTC only: between two values of one zone Python compares
what the clocks on the wall show, which is wrong around a change of the clocks. Calendar units are
added on the wall clock, the rest exactly.

DateTimeError
├── NotADateTimeError
├── OutOfRangeError
├── UnknownTimeZoneError
└── MissingTimeZoneDataError
"""

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from pydantic import JsonValue


class DateTimeError(Exception):
    """The input has no answer; the message says why."""


class NotADateTimeError(DateTimeError):
    """A text that is not an ISO 8601 date or time."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"`{text[:60]}` is not an ISO 8601 date or time. Write it like 2024-03-31, "
            "2024-03-31T14:30:00 or 2024-03-31T14:30:00+02:00, or use now."
        )


class OutOfRangeError(DateTimeError):
    """A moment outside the years that the calendar covers."""

    def __init__(self) -> None:
        super().__init__("The result is outside the years 1 to 9999.")


class UnknownTimeZoneError(DateTimeError):
    """A name that matches no time zone, or several."""

    def __init__(self, name: str, candidates: Sequence[str]) -> None:
        hint = f" Did you mean {' or '.join(candidates)}?" if candidates else ""
        super().__init__(
            f"Unknown or ambiguous time zone `{name[:60]}`.{hint} "
            "Use an IANA name such as Europe/Paris or an offset such as +02:00."
        )


class MissingTimeZoneDataError(DateTimeError):
    """The machine has no time zone database."""

    def __init__(self) -> None:
        super().__init__(
            "This system has no time zone data, so only UTC and offsets such as +02:00 work."
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant as a zone shows it; `later` is the second reading of an ambiguous wall clock."""

    instant: datetime
    zone: tzinfo
    note: str | None = None
    later: datetime | None = None

    @property
    def local(self) -> datetime:
        """What clock and calendar show in the zone."""
        return in_zone(self.instant, self.zone)

    def seen_in(self, zone: tzinfo) -> "Moment":
        """Return the same instant as another zone shows it."""
        return Moment(self.instant, zone)

    def second_reading(self) -> "Moment | None":
        """Return the later of two instants that an ambiguous wall clock stands for."""
        return None if self.later is None else Moment(self.later, self.zone)

    def as_json(self) -> dict[str, JsonValue]:
        """Return the moment as the tool prints it."""
        local = self.local
        return {
            "datetime": local.isoformat(),
            "timezone": str(self.zone),
            "weekday": f"{local:%A}",
            "unix_seconds": seconds(self.instant - datetime(1970, 1, 1, tzinfo=UTC)),
        }


def read(text: str) -> datetime:
    """Return an ISO 8601 date or time, with its offset if it has one.

    Errors: NotADateTimeError.
    """
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise NotADateTimeError(text) from error


def at_wall_clock(wall: datetime, zone: tzinfo) -> Moment:
    """Return the moment at which the clocks of a zone show this time.

    A time that the clocks skip moves forward by what they skip; of a time that they show twice,
    the first is used. The moment's note says so.
    """
    first, second = (in_zone(wall.replace(tzinfo=zone, fold=fold), UTC) for fold in (0, 1))
    shown = in_zone(first, zone)
    if shown.replace(tzinfo=None, fold=0) != wall.replace(fold=0):
        return Moment(first, zone, note=_skipped(wall, shown))
    if first != second:
        return Moment(first, zone, note=_twice(wall, zone, first, second), later=second)
    return Moment(first, zone)


def in_zone(instant: datetime, zone: tzinfo) -> datetime:
    """Return the instant in a zone. Errors: OutOfRangeError at the ends of the calendar."""
    try:
        return instant.astimezone(zone)
    except OverflowError as error:
        raise OutOfRangeError from error


def seconds(duration: timedelta) -> int | float:
    """Return a duration in seconds, an integer unless it holds a fraction."""
    return duration.total_seconds() if duration.microseconds else duration // timedelta(seconds=1)


def _skipped(wall: datetime, shown: datetime) -> str:
    return (
        f"{wall.isoformat()} does not exist in {shown.tzinfo}: the clocks skip it. "
        f"It was moved to {shown.isoformat()}."
    )


def _twice(wall: datetime, zone: tzinfo, first: datetime, second: datetime) -> str:
    return (
        f"{wall.isoformat()} is ambiguous in {zone}: it happens twice, at "
        f"{in_zone(first, zone).isoformat()} and at {in_zone(second, zone).isoformat()}. "
        "The first was used; give an offset to choose."
    )


@dataclass(frozen=True, slots=True)
class CalendarParts:
    """A difference in whole months and days and an exact rest, none negative."""

    months: int
    days: int
    rest: timedelta


def shifted(start: Moment, *, months: int, days: int, exact: timedelta) -> tuple[Moment, list[str]]:
    """Return a moment moved by months, then days, then an exact duration; and notes about it.

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
