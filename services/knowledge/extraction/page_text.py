"""Owns how a page's text is laid out: which elements break lines, and what becomes of spaces."""

import re
from typing import Final

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
    """Text as it is laid out: runs of spaces are one, and breaks don't add up."""

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
