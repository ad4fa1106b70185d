"""Owns reading how long an answer over HTTP asks to wait before the next attempt."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

_LONGEST: Final = timedelta(minutes=5)


def wait_asked_for(
    headers: Mapping[str, str],
    *,
    longest: timedelta = _LONGEST,
    now: datetime | None = None,
    if_over: timedelta | None = None,
) -> timedelta | None:
    """Return the wait of `Retry-After`, cut to `longest`; None where nothing says one.

    Dates are read by whoever tells what is `now`. A wait that is less than none, or over by now,
    is `if_over`.
    Shapes: `headers` has its names in lower case, or finds them in any.
    Source: RFC 9110, section 10.2.3.
    """
    seconds = _seconds(headers.get("retry-after", ""), now)
    if math.isnan(seconds):
        return None
    if seconds < 0:
        return if_over
    return timedelta(seconds=min(seconds, longest.total_seconds()))


def _seconds(given: str, now: datetime | None) -> float:
    try:
        return float(given)
    except ValueError:
        return math.nan if now is None else _seconds_until(given, now)


def _seconds_until(date: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(date)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - now).total_seconds()
    except (ValueError, OverflowError):
        return math.nan
