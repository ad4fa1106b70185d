"""Owns what may stand in a prompt for something that is known only when it is used."""

import re
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

PLACEHOLDERS: Final = frozenset({"date"})

# A name in braces and nothing else: JSON and code may stand in a prompt as they are.
_PLACEHOLDER: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")


def unknown_placeholders(content: str) -> list[str]:
    """Return the names in braces that stand for nothing, each once, in order."""
    names = dict.fromkeys(_PLACEHOLDER.findall(content))
    return [name for name in names if name not in PLACEHOLDERS]


def filled(content: str, *, now: datetime, time_zone: str | None) -> str:
    """Return the prompt with the date in the zone, or in UTC where that is none."""
    if "{date}" not in content:
        return content
    return content.replace("{date}", f"{now.astimezone(_zone(time_zone)):%A, %Y-%m-%d}")


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):  # no such zone, or no name that one could have
        return ZoneInfo("UTC")
