"""Owns what every extracted text has in common: Postgres can hold it, and it has something to read.

Does not read any format.
"""

import re
from typing import Final

from schema.result import Err, Ok, Result
from schema.wire import make_storable
from services.knowledge.extraction.documents import ExtractionRefusal

_LINE_ENDS: Final = re.compile(r"\r\n?")
# What programs write but people don't: C0 without tab, newline, form feed, return and escape.
_CONTROLS: Final = "".join(map(chr, {*range(32)} - {9, 10, 12, 13, 27})) + "\x7f"
_CONTROLS_PER_CHAR: Final = 0.01
_REPLACEMENT: Final = "\ufffd"


def finish(
    text: str, *, max_chars: int, unreadable: ExtractionRefusal
) -> Result[str, ExtractionRefusal]:
    """Return `text` as it is stored; `unreadable` is the refusal where nothing can be read.

    Lines end in a newline alone; what Postgres can't hold has become U+FFFD.
    """
    if len(text) > max_chars:
        return Err(ExtractionRefusal.TOO_LARGE)
    stored = make_storable(_LINE_ENDS.sub("\n", text))
    return Ok(stored) if _can_be_read(stored) else Err(unreadable)


def looks_binary(text: str) -> bool:
    """Return whether more of `text` is control characters than a stray one here and there."""
    controls = sum(text.count(control) for control in _CONTROLS)
    return controls > len(text) * _CONTROLS_PER_CHAR


def _can_be_read(text: str) -> bool:
    return any(char.isprintable() and not char.isspace() and char != _REPLACEMENT for char in text)
