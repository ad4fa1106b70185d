"""Quotes of what users and documents say: cut or on one line, and always marked as data."""

import re
from typing import Final

CUT: Final = " [cut]"
_TAGS: Final = ("memory", "memories", "passage", "knowledge", "user", "instructions")
# Whatever could pass for one of our tags: with spaces, in capitals, with what no eye sees in it.
_HIDDEN: Final = r"[\s\u00ad\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]*"
_TAG: Final = re.compile(
    rf"[<\uff1c\ufe64\u2039\u3008](?={_HIDDEN}[/\uff0f\u2044\u2215]?{_HIDDEN}(?:"
    + "|".join(_HIDDEN.join(name) for name in _TAGS)
    + r"))",
    re.IGNORECASE,
)


def as_data(text: str) -> str:
    """Return a text that can't end the tag that it stands in, nor open one of ours."""
    return _TAG.sub("&lt;", text)


def one_line(text: str, *, limit: int) -> str:
    """Return a text on one line of at most `limit` characters, as data."""
    return cut(" ".join(text.split()), limit=limit)


def cut(text: str, *, limit: int) -> str:
    """Return at most `limit` characters of a text, as data; what is cut says so."""
    safe = as_data(text)
    return safe if len(safe) <= limit else safe[: limit - len(CUT)].rstrip() + CUT
