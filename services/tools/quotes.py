"""Owns how tools quote what users wrote: on one line or cut, and never as anything but data."""

from services.contexts.rendering import CUT, as_data


def one_line(text: str, *, limit: int) -> str:
    """Return a text on one line of at most `limit` characters, as data."""
    return cut(" ".join(text.split()), limit=limit)


def cut(text: str, *, limit: int) -> str:
    """Return at most `limit` characters of a text, as data; what is cut says so."""
    safe = as_data(text)
    return safe if len(safe) <= limit else safe[: limit - len(CUT)].rstrip() + CUT
