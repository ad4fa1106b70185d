"""Owns reading text/plain and text/markdown: the encoding, and telling text from other bytes.

Markdown stays as it is written: its marks are text to a model, and boundaries to the splitter.
"""

import codecs
from typing import Final

from schema.result import Err, Result
from services.knowledge.extraction.documents import ExtractionRefusal
from services.knowledge.extraction.finished_text import finish, looks_binary

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHER_FORMATS: Final = ("%PDF-", "{\\rtf", "%!PS")


def extract_plain_text(data: bytes, *, max_chars: int) -> Result[str, ExtractionRefusal]:
    """Return the text of a text file: UTF-8, or what its byte order mark says.

    Errors: EMPTY, NOT_ITS_TYPE, TOO_LARGE.
    """
    try:
        text = _decode(data)
    except UnicodeDecodeError:
        return Err(ExtractionRefusal.NOT_ITS_TYPE)
    if looks_binary(text) or text.startswith(_OTHER_FORMATS):
        return Err(ExtractionRefusal.NOT_ITS_TYPE)
    return finish(text, max_chars=max_chars, unreadable=ExtractionRefusal.EMPTY)


def _decode(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding)
    return data.decode("utf-8")
