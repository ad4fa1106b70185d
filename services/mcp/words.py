"""Owns how much of a stranger's words is kept."""

from typing import Final

from schema.wire import make_storable

_LONGEST: Final = 500


def bounded(words: str, limit: int = _LONGEST) -> str:
    """Return words as they may be stored, and no more of them than that."""
    text = make_storable(words[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
