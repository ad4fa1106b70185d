"""Time zones by the names that people and models use for them."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, timedelta, timezone, tzinfo
from difflib import get_close_matches
from functools import cached_property
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from services.tools.date_time.moments import MissingTimeZoneDataError, UnknownTimeZoneError

# `right/` counts leap seconds and `posix/` repeats the rest: people use neither.
_KEY: Final = re.compile(r"(?!right/|posix/)[A-Za-z][\w+-]*(?:/[A-Za-z][\w+-]*)*", re.ASCII)
_OFFSET: Final = re.compile(
    r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE
)
_MAX_CANDIDATES: Final = 5


class Zones:
    """Time zones by IANA name, by the last parts of one (`Paris`, `new york`), or by offset."""

    def __init__(self, names: Callable[[], set[str]] = available_timezones) -> None:
        self._read_names = names

    def find(self, name: str) -> tzinfo:
        """Return the zone.

        Errors: UnknownTimeZoneError with the nearest names; MissingTimeZoneDataError on a system
        without a time zone database.
        """
        wanted = name.strip().replace("\N{MINUS SIGN}", "-")
        if wanted.upper() in {"UTC", "Z"}:
            return UTC
        return _at_offset(wanted) or _by_key(wanted) or self._by_last_parts(wanted)

    def _by_last_parts(self, wanted: str) -> tzinfo:
        if not self._keys:
            raise MissingTimeZoneDataError
        found = self._by_ending.get(_folded(wanted), [])
        if len(found) != 1:
            raise UnknownTimeZoneError(wanted, found or self._nearest(wanted))
        return ZoneInfo(found[0])

    def _nearest(self, wanted: str) -> Sequence[str]:
        endings = get_close_matches(_folded(wanted[:60]), self._by_ending, n=3, cutoff=0.7)
        keys = (key for ending in endings for key in self._by_ending[ending])
        return list(dict.fromkeys(keys))[:_MAX_CANDIDATES]

    @cached_property
    def _keys(self) -> Sequence[str]:
        # Reads the head of some 600 files, so it waits until a name needs it.
        return sorted(self._read_names())

    @cached_property
    def _by_ending(self) -> Mapping[str, list[str]]:
        """The zones that each whole name and each run of its last parts can mean."""
        endings: defaultdict[str, list[str]] = defaultdict(list)
        for key in self._keys:
            parts = _folded(key).split("/")
            for start in range(len(parts)):
                endings["/".join(parts[start:])].append(key)
        for key in self._keys:
            endings[_folded(key)] = [key]
        return endings


def _by_key(wanted: str) -> tzinfo | None:
    if not _KEY.fullmatch(wanted):
        return None
    try:
        return ZoneInfo(wanted)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder such as `America`
        return None


def _at_offset(wanted: str) -> tzinfo | None:
    match = _OFFSET.fullmatch(wanted)
    if match is None or int(match[2]) > 23:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    return timezone(-offset if match[1] == "-" else offset)


def _folded(name: str) -> str:
    return name.casefold().replace(" ", "_")
