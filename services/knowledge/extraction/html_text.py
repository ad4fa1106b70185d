"""Reads text/html: the encoding, which elements are read, and how their text is laid out.

Time and memory are bounded by the process that it runs in: a hostile page makes any HTML
parser slow, as the standard's own algorithm is quadratic in the depth of some elements.
"""

import codecs
import re
from typing import Final

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode, SelectolaxError

from schema.result import Err, Result
from services.knowledge.extraction.charsets import guessed, looks_binary
from services.knowledge.extraction.documents import ExtractionLimits, ExtractionRefusal
from services.knowledge.extraction.garbling import is_garbled
from services.knowledge.extraction.plain_text import finish

_PARAGRAPHS: Final = frozenset(
    (
        *("article", "aside", "body", "footer", "header", "main", "nav", "section"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "title"),
        *("blockquote", "dl", "figure", "form", "hr", "ol", "p", "pre", "table", "ul"),
    )
)
_LINES: Final = frozenset(
    (
        *("address", "center", "details", "dialog", "div", "fieldset", "hgroup", "legend"),
        *("caption", "dd", "dir", "dt", "figcaption", "li", "menu", "summary"),
        *("tbody", "tfoot", "thead", "tr"),
    )
)
_CELLS: Final = frozenset(("td", "th"))
_AS_WRITTEN: Final = frozenset(("listing", "plaintext", "pre", "xmp"))
_SPACES: Final = re.compile(r"[ \t\n\f\r]+")


class PageText:
    """Text as it is laid out: runs of spaces collapse, and breaks don't add up."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._breaks = 0
        self._space = ""
        self._as_written = 0

    def enter(self, tag: str) -> None:
        """Begin an element."""
        if tag == "br":
            self._breaks = min(self._breaks + 1, 2)
        self._break(tag)
        self._as_written += tag in _AS_WRITTEN

    def leave(self, tag: str) -> None:
        """End an element."""
        self._break(tag)
        self._as_written -= tag in _AS_WRITTEN
        if tag in _CELLS:
            self._space = "\t"

    def write(self, text: str) -> None:
        """Add text."""
        written = text if self._as_written else _SPACES.sub(" ", text)
        if not self._as_written and written.startswith(" "):
            self._space = self._space or " "
            written = written[1:]
        if not written:
            return
        self._pieces.append(self._gap())
        self._breaks = 0
        self._space = " " if not self._as_written and written.endswith(" ") else ""
        self._pieces.append(written.removesuffix(" ") if self._space else written)

    def all(self) -> str:
        """Return what was written."""
        lines = "".join(self._pieces).split("\n")
        return "\n".join(line.rstrip(" \t") for line in lines).strip("\n")

    def _gap(self) -> str:
        if not self._pieces:
            return ""
        return "\n" * self._breaks or self._space

    def _break(self, tag: str) -> None:
        wanted = 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0
        self._breaks = max(self._breaks, wanted)


_UNREAD: Final = frozenset(
    (
        *("iframe", "meta", "noframes", "noscript", "script", "style", "template"),
        *("audio", "canvas", "embed", "map", "object", "svg", "video"),
        *("datalist", "select", "textarea"),
    )
)
_INVISIBLE: Final = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


def extract_html(data: bytes, limits: ExtractionLimits) -> Result[str, ExtractionRefusal]:
    """Return the readable text of a page, a blank line between its paragraphs.

    Errors: NOT_ITS_TYPE, UNKNOWN_CHARSET, TOO_LARGE, TOO_COMPLEX, NO_TEXT.
    Source: HTML Standard, 13.2.3 (how the encoding is found), 15.3 (which elements are blocks).
    """
    if not data.startswith(_UTF16_MARKS) and looks_binary(data.decode("latin-1")):
        return Err(ExtractionRefusal.NOT_ITS_TYPE)
    try:
        # Events serve live pages only, and their code has crashed on hostile ones.
        page = LexborHTMLParser(
            data, encoding=True, scripting=True, options=LexborDocumentOptions.WO_EVENTS
        )
    except SelectolaxError:
        # The standard defines a tree for every page: a parser fails only if memory runs out.
        return Err(ExtractionRefusal.TOO_COMPLEX)
    is_utf8 = _is_utf8(data)
    if page.raw_html == data and not is_utf8:
        # The page doesn't say what it is written in.
        found = guessed(data)
        if found is None:
            return Err(ExtractionRefusal.UNKNOWN_CHARSET)
        return extract_html(codecs.BOM_UTF8 + found[0].encode(), limits)
    text = _read(page.root) if page.root else ""
    if not is_utf8 and is_garbled(text):
        return Err(ExtractionRefusal.UNKNOWN_CHARSET)
    return finish(text, max_chars=limits.text_chars, unreadable=ExtractionRefusal.NO_TEXT)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class _End:
    """The place where an element ends."""

    def __init__(self, tag: str) -> None:
        self.tag = tag


def _read(root: LexborNode) -> str:
    """Walk the tree without recursion: pages may be nested arbitrarily deep."""
    text = PageText()
    ahead: list[LexborNode | _End] = [root]
    while ahead:
        node = ahead.pop()
        if isinstance(node, _End):
            text.leave(node.tag)
            continue
        following = node.next
        if following is not None:
            ahead.append(following)
        tag = node.tag or ""
        if node.is_text_node:
            text.write(node.text_content or "")
        elif node.is_element_node and not _is_unread(node, tag):
            text.enter(tag)
            ahead.append(_End(tag))
            if node.first_child is not None:
                ahead.append(node.first_child)
    return text.all()


def _is_unread(node: LexborNode, tag: str) -> bool:
    if tag in _UNREAD:
        return True
    attributes = node.attributes
    return "hidden" in attributes or bool(_INVISIBLE.search(attributes.get("style") or ""))
