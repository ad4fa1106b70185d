"""Reads text/plain and text/markdown, and finishes every extracted text for storage.

Markdown stays as it is written: its marks are text to a model, and boundaries to the splitter.
"""

import re
from typing import Final

from schema.result import Err, Ok, Result
from schema.wire import make_storable
from services.knowledge.extraction.charsets import guessed, looks_binary, marked, wide
from services.knowledge.extraction.documents import ExtractionRefusal

_LINE_ENDS: Final = re.compile(r"\r\n?")
_REPLACEMENT: Final = "\ufffd"


def finish(
    text: str, *, max_chars: int, unreadable: ExtractionRefusal
) -> Result[str, ExtractionRefusal]:
    """Return `text` as it is stored; `unreadable` is the refusal if nothing is readable.

    Lines end in a newline alone; what Postgres can't hold has become U+FFFD.
    """
    if len(text) > max_chars:
        return Err(ExtractionRefusal.TOO_LARGE)
    stored = make_storable(_LINE_ENDS.sub("\n", text))
    return Ok(stored) if _can_be_read(stored) else Err(unreadable)


def _can_be_read(text: str) -> bool:
    return any(char.isprintable() and not char.isspace() and char != _REPLACEMENT for char in text)


_OTHER_FORMATS: Final = ("%PDF-", "{\\rtf", "%!PS")


def extract_plain_text(data: bytes, *, max_chars: int) -> Result[str, ExtractionRefusal]:
    """Return the text of a text file: by its byte order mark, in UTF-8, or else in a clear charset.

    Errors: EMPTY, NOT_ITS_TYPE, UNKNOWN_CHARSET, TOO_LARGE.
    """
    try:
        text, _ = decoded(data)
    except UnicodeDecodeError:
        return Err(ExtractionRefusal.NOT_ITS_TYPE)
    if text is None:
        return Err(ExtractionRefusal.UNKNOWN_CHARSET)
    if looks_binary(text) or text.startswith(_OTHER_FORMATS):
        return Err(ExtractionRefusal.NOT_ITS_TYPE)
    return finish(text, max_chars=max_chars, unreadable=ExtractionRefusal.EMPTY)


def decoded(data: bytes) -> tuple[str | None, str | None]:
    """Return the text, None in an unclear charset, and the name of the charset if it is guessed.

    Errors: UnicodeDecodeError for what is no text.
    """
    text = marked(data)
    if text is not None:
        return text, None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        is_binary = looks_binary(data.decode("latin-1"))
        found = wide(data) if is_binary else guessed(data)
        if found is None and is_binary:
            raise
        return found or (None, None)
    # UTF-16 of many languages is valid UTF-8, with a control character beside each letter.
    return (wide(data) if looks_binary(text) else None) or (text, None)
