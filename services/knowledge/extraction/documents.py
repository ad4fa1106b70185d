"""Content types of documents, the limits of extraction, and its result: a text or a refusal."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict

from schema.result import Err, Ok, Result


class ContentType(StrEnum):
    """A content type that text can be extracted from."""

    PLAIN = "text/plain"
    MARKDOWN = "text/markdown"
    HTML = "text/html"
    PDF = "application/pdf"


class ExtractionRefusal(StrEnum):
    """Why no text can be extracted; the same bytes are refused again."""

    EMPTY = "empty"
    NOT_ITS_TYPE = "not_its_type"
    UNKNOWN_CHARSET = "unknown_charset"
    GARBLED = "garbled"
    TOO_LARGE = "too_large"
    TOO_COMPLEX = "too_complex"
    ENCRYPTED = "encrypted"
    NO_TEXT = "no_text"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionLimits:
    """The limits of one document; those of the process apply to HTML and PDF.

    Units: `memory_bytes` bounds the address space, and so what a compressed stream expands to;
    `cpu_s` is processor time and `timeout_s` wall-clock time, the start included.
    """

    document_bytes: int = 20_000_000
    text_chars: int = 2_000_000
    pages: int = 2_000
    memory_bytes: int = 1024 * 1024 * 1024
    cpu_s: int = 60
    timeout_s: float = 120.0


class Answer(BaseModel):
    """What a parser process writes: either a text or a refusal, never both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = None
    refusal: ExtractionRefusal | None = None

    @classmethod
    def of(cls, result: Result[str, ExtractionRefusal]) -> Self:
        """Return the answer for a result."""
        match result:
            case Ok(text):
                return cls(text=text)
            case Err(refusal):
                return cls(refusal=refusal)

    def result(self) -> Result[str, ExtractionRefusal]:
        """Return the result."""
        if self.refusal is not None:
            return Err(self.refusal)
        return Ok(self.text or "")
