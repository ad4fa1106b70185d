"""`Retry-After`: how long an HTTP response asks to wait before the next attempt."""

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
    """Return the wait that `Retry-After` asks for, at most `longest`; None without a valid one.

    A date is read relative to `now`, the current time by default. A negative wait, or a date in
    the past, returns `if_over`.
    Shapes: names in `headers` are in lower case, or matched in any case.
    Source: RFC 9110, section 10.2.3.
    """
    seconds = _seconds(headers.get("retry-after", ""), now or datetime.now(UTC))
    if math.isnan(seconds):
        return None
    if seconds < 0:
        return if_over
    return timedelta(seconds=min(seconds, longest.total_seconds()))


def _seconds(given: str, now: datetime) -> float:
    try:
        return float(given)
    except ValueError:
        return _seconds_until(given, now)


def _seconds_until(date: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(date)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - now).total_seconds()
    except (ValueError, OverflowError):
        return math.nan
