"""Owns reading text/html: the encoding, and which elements are read.

Time and memory are the business of the process that it runs in: a hostile page makes any HTML
parser slow, as the standard's own algorithm is quadratic in the depth of some elements.
"""

import re
from typing import Final

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode, SelectolaxError

from schema.result import Err, Result
from services.knowledge.extraction.documents import ExtractionLimits, ExtractionRefusal
from services.knowledge.extraction.finished_text import finish, looks_binary
from services.knowledge.extraction.page_text import PageText

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
    """Return what a person would read of a page, a blank line between its paragraphs.

    Errors: NOT_ITS_TYPE, TOO_LARGE, TOO_COMPLEX, NO_TEXT.
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
        # The standard has a tree for every page: a parser fails for want of memory alone.
        return Err(ExtractionRefusal.TOO_COMPLEX)
    if page.raw_html == data and not _is_utf8(data):
        return Err(ExtractionRefusal.NOT_ITS_TYPE)
    text = _read(page.root) if page.root else ""
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
    """Walk the tree without recursion: pages nest as deep as their authors please."""
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
