"""Owns what can be wrong with a question about time, in words that let a model correct it.

DateTimeError
├── NotADateTimeError
├── OutOfRangeError
├── UnknownTimeZoneError
└── MissingTimeZoneDataError
"""

from collections.abc import Sequence


class DateTimeError(Exception):
    """The question has no answer; the message says why."""


class NotADateTimeError(DateTimeError):
    """A text that is no ISO 8601 date or time."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"`{text[:60]}` is not an ISO 8601 date or time. Write it like 2024-03-31, "
            "2024-03-31T14:30:00 or 2024-03-31T14:30:00+02:00, or write now."
        )


class OutOfRangeError(DateTimeError):
    """A moment beyond the years that the calendar here covers."""

    def __init__(self) -> None:
        super().__init__("The result is outside of the years 1 to 9999.")


class UnknownTimeZoneError(DateTimeError):
    """A name that belongs to no time zone, or to several."""

    def __init__(self, name: str, candidates: Sequence[str]) -> None:
        hint = f" Did you mean {' or '.join(candidates)}?" if candidates else ""
        super().__init__(
            f"There is no single time zone called `{name[:60]}`.{hint} "
            "Use an IANA name such as Europe/Paris, or an offset such as +02:00."
        )


class MissingTimeZoneDataError(DateTimeError):
    """The machine has no time zone database."""

    def __init__(self) -> None:
        super().__init__(
            "This system has no time zone data, so only UTC and offsets such as +02:00 work."
        )
