"""Reads application/pdf: the text that its pages show, in the order in which it was written.

PDFium knows the character collections of Chinese, Japanese and Korean fonts and puts spaces where
a page leaves gaps. It runs no script, opens no attachment, fills in no form and decodes no picture
here, and nothing is recognised in one. Text outside a page's visible area is left out. It has no
limits of its own: time and memory are bounded by the process that it runs in.
"""

import re
from contextlib import closing
from typing import Final

from pypdfium2 import PdfDocument, PdfiumError  # type: ignore[import-untyped]
from pypdfium2.raw import (  # type: ignore[import-untyped]
    FPDF_ERR_PASSWORD,
    FPDF_ERR_SECURITY,
)

from schema.result import Err, Ok, Result
from services.knowledge.extraction.documents import ExtractionLimits, ExtractionRefusal
from services.knowledge.extraction.garbling import is_garbled
from services.knowledge.extraction.plain_text import finish

_HEADER: Final = b"%PDF-"
_HEADER_WITHIN: Final = 1024
_BETWEEN_PAGES: Final = "\n\n"
_LOCKED: Final = frozenset((FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY))


def extract_pdf(data: bytes, limits: ExtractionLimits) -> Result[str, ExtractionRefusal]:
    """Return the text of a PDF's pages in their order, a blank line between them.

    A PDF that opens without a password is read, whatever its author permits.

    Errors: NOT_ITS_TYPE, TOO_LARGE, TOO_COMPLEX, ENCRYPTED, NO_TEXT, GARBLED. A hostile file may
    end the process.
    """
    if _HEADER not in data[:_HEADER_WITHIN]:
        return Err(ExtractionRefusal.NOT_ITS_TYPE)
    try:
        pages = _read_pages(data, limits)
    except PdfiumError as error:
        is_locked = error.err_code in _LOCKED
        return Err(ExtractionRefusal.ENCRYPTED if is_locked else ExtractionRefusal.NOT_ITS_TYPE)
    if isinstance(pages, Err):
        return pages
    text = finish(
        join_hyphenated(spell_ligatures(pages.value)),
        max_chars=limits.text_chars,
        unreadable=ExtractionRefusal.NO_TEXT,
    )
    if isinstance(text, Ok) and is_garbled(text.value):
        return Err(ExtractionRefusal.GARBLED)
    return text


def _read_pages(data: bytes, limits: ExtractionLimits) -> Result[str, ExtractionRefusal]:
    with PdfDocument(data) as document:
        count = len(document)
        if count > limits.pages:
            return Err(ExtractionRefusal.TOO_COMPLEX)
        texts: list[str] = []
        chars = 0
        for number in range(count):
            with closing(document[number]) as page, closing(page.get_textpage()) as written:
                text: str = written.get_text_bounded()
            chars += len(text)
            if chars > limits.text_chars:
                return Err(ExtractionRefusal.TOO_LARGE)
            texts.append(text)
    return Ok(_BETWEEN_PAGES.join(texts))


# Where fonts of TeX have them; they often don't say that these are letters.
_LIGATURES: Final = {"\x1b": "ff", "\x1c": "fi", "\x1d": "fl", "\x1e": "ffi", "\x1f": "ffl"}
_LIGATURE: Final = re.compile(r"[\x1b-\x1f](?=[a-z\xdf-\xff])|(?<=[A-Za-z\xc0-\xff])[\x1b-\x1f]")


def spell_ligatures(text: str) -> str:
    """Return the text with the letters of ligatures that are codes of a font."""
    return _LIGATURE.sub(lambda code: _LIGATURES[code[0]], text)


# PDFium writes U+0002 for a hyphen at the end of a line, and leaves the end of the line out.
_BREAK: Final = "\x02"
_WORD: Final = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_LEFT: Final = re.compile(r"(\S*?)([^\W\d_]+)$")
_RIGHT: Final = re.compile(r"([^\W\d_]+)(\S*)")
_OF_A_NAME: Final = re.compile(r"[-/.:=_@](?=\w|$)")
_LONGEST_WORD: Final = 80


def join_hyphenated(text: str) -> str:
    """Return the text without the hyphens that only break a word at the end of a line.

    A hyphen stays if the text has the word with it elsewhere, and in addresses and compounds.
    """
    first, *parts = text.split(_BREAK)
    words = {word.casefold() for word in _WORD.findall(text)} if parts else set()
    joined = [first]
    for part in parts:
        left = _LEFT.search(joined[-1][-_LONGEST_WORD:])
        right = _RIGHT.match(part[:_LONGEST_WORD])
        is_one_word = left and right and _is_one_word(left, right, words)
        joined.extend(("" if is_one_word else "-", part))
    return "".join(joined)


def _is_one_word(left: re.Match[str], right: re.Match[str], words: set[str]) -> bool:
    before, start = left.groups()
    end, after = right.groups()
    if f"{start}-{end}".casefold() in words:
        return False
    if f"{start}{end}".casefold() in words:
        return True
    is_name = _OF_A_NAME.search(before) or _OF_A_NAME.search(after[:-1])
    return end.islower() and not start.isupper() and not is_name
