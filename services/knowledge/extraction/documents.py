"""Owns what a document may be: its content type, how much it may ask for, and why it is refused."""

from dataclasses import dataclass
from enum import StrEnum


class ContentType(StrEnum):
    """A content type that text can be extracted from."""

    PLAIN = "text/plain"
    MARKDOWN = "text/markdown"
    HTML = "text/html"
    PDF = "application/pdf"


class ExtractionRefusal(StrEnum):
    """Why a document gives no text; the same bytes are refused again."""

    EMPTY = "empty"
    NOT_ITS_TYPE = "not_its_type"
    TOO_LARGE = "too_large"
    TOO_COMPLEX = "too_complex"
    ENCRYPTED = "encrypted"
    NO_TEXT = "no_text"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionLimits:
    """What one document may ask for; the limits of the process apply to HTML and PDF.

    Units: `stream_bytes` bounds what a compressed stream of a PDF expands to, `memory_bytes` the
    address space; `cpu_s` is processor time and `timeout_s` wall-clock time, the start included.
    """

    document_bytes: int = 20_000_000
    text_chars: int = 2_000_000
    pages: int = 2_000
    stream_bytes: int = 50_000_000
    memory_bytes: int = 1024 * 1024 * 1024
    cpu_s: int = 60
    timeout_s: float = 120.0
