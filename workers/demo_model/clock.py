"""Owns the recognition of questions for the time or the date, and of the places they name."""

import re

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
