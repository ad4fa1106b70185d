"""What a user asks for: the time somewhere, a tool by its name, or a tool in a set phrase."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from workers.demo_model.prompt import JsonObject

_QUESTION = re.compile(
    r"\b(?:what|which|what's|whats|current|tell me|today's|now)\b[^.?!\n]*\b(?:time|date|day)\b"
    r"|\b(?:time|date|day)\s+(?:is it|is today|now|today)\b"
    r"|\A\W*(?:the\s+)?(?:time|date)\b",
    re.IGNORECASE,
)
_ZONE_NAME = re.compile(r"\b[A-Z][A-Za-z]+(?:/[A-Z][A-Za-z_]+){1,2}\b")
_ZONES = {
    "amsterdam": "Europe/Amsterdam",
    "beijing": "Asia/Shanghai",
    "berlin": "Europe/Berlin",
    "cairo": "Africa/Cairo",
    "chicago": "America/Chicago",
    "delhi": "Asia/Kolkata",
    "dubai": "Asia/Dubai",
    "hong kong": "Asia/Hong_Kong",
    "istanbul": "Europe/Istanbul",
    "lagos": "Africa/Lagos",
    "lisbon": "Europe/Lisbon",
    "london": "Europe/London",
    "los angeles": "America/Los_Angeles",
    "madrid": "Europe/Madrid",
    "mexico city": "America/Mexico_City",
    "mumbai": "Asia/Kolkata",
    "nairobi": "Africa/Nairobi",
    "new york": "America/New_York",
    "paris": "Europe/Paris",
    "rome": "Europe/Rome",
    "san francisco": "America/Los_Angeles",
    "seoul": "Asia/Seoul",
    "shanghai": "Asia/Shanghai",
    "singapore": "Asia/Singapore",
    "sydney": "Australia/Sydney",
    "são paulo": "America/Sao_Paulo",
    "tokyo": "Asia/Tokyo",
    "toronto": "America/Toronto",
    "vienna": "Europe/Vienna",
    "zurich": "Europe/Zurich",
}
_PLACE = re.compile(r"\b(?:" + "|".join(map(re.escape, _ZONES)) + r")\b", re.IGNORECASE)
_CALL = re.compile(r"\s*(/?)call\s+([\w-]{1,128})\s*(\{.*\})?\s*", re.IGNORECASE | re.DOTALL)
_PHRASES = {
    "remember": ("content", r"remember(?:\s+that|:)\s+(.+)"),
    "recall": ("query", r"what do you remember about\s+(.+)"),
    "web_search": ("query", r"search the web for\s+(.+)"),
    "knowledge_search": ("query", r"search (?:the|my) documents for\s+(.+)"),
    "deep_reasoning": ("question", r"think hard about\s+(.+)"),
}
_PATTERNS = {
    name: (field, re.compile(rf"\s*(?:please[,\s]+)?{phrase}", re.IGNORECASE | re.DOTALL))
    for name, (field, phrase) in _PHRASES.items()
}
_MAX_CHARS = 900


def find_clock_question(text: str) -> str | None:
    """Return the time zone that the text asks the time or date of, or None if it asks for neither.

    A zone name is taken as written, a known city gives its zone, and without a place it is UTC.
    """
    if not _QUESTION.search(text):
        return None
    if zone := _ZONE_NAME.search(text):
        return zone[0]
    place = _PLACE.search(text)
    return _ZONES[place[0].lower()] if place else "UTC"


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A call that the user spelled out; without `input`, what they wrote was not a JSON object."""

    name: str
    input: JsonObject | None


def find_call(text: str, *, offered: Collection[str]) -> WantedCall | None:
    """Return the call that a message of the form `call <tool> {json}` spells out, or None.

    Without an input it counts only with a slash, or for an offered tool: people call other things,
    too.
    """
    found = _CALL.fullmatch(text)
    if found is None or not (found[1] or found[3] or found[2] in offered):
        return None
    return WantedCall(found[2], _object(found[3] or "{}"))


def find_phrase(text: str, *, offered: Collection[str]) -> WantedCall | None:
    """Return the call that a set phrase asks for, such as `remember that …`, or None."""
    for name, (field, pattern) in _PATTERNS.items():
        if name in offered and (found := pattern.fullmatch(text)):
            return WantedCall(name, {field: found[1].strip()[:_MAX_CHARS]})
    return None


def _object(text: str) -> JsonObject | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
