"""Owns moments: how a text or a wall clock becomes an instant, and how that is printed.

Instants are compared and subtracted in UTC only: between two values of one zone Python compares
what the clocks on the wall show, which is wrong around a change of the clocks.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from pydantic import JsonValue

from services.tools.date_time.errors import NotADateTimeError, OutOfRangeError


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

    def described(self) -> dict[str, JsonValue]:
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

    A time that the clocks skip moves forward by what they skip; of one that they show twice, the
    first is taken. Both are said in the moment's note.
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
