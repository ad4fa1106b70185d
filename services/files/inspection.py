"""What is found of a file, the limits of finding it, and why it is refused."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from schema.files import TEXT_TYPE, ContentType


class FileRefusal(StrEnum):
    """Why a file is not accepted; the same bytes are refused again."""

    EMPTY = "empty"
    UNKNOWN_TYPE = "unknown_type"
    SVG = "svg"
    BROKEN = "broken"
    ENCRYPTED = "encrypted"
    TOO_COMPLEX = "too_complex"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_MANY_PAGES = "too_many_pages"
    TOO_MANY_CHARACTERS = "too_many_characters"
    UNKNOWN_CHARSET = "unknown_charset"
    NOT_ITS_TYPE = "not_its_type"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """The limits of one file, and of the process that inspects it.

    Units: `frames` are those of an animation, `chars` those of a text; `memory_bytes` bounds the
    address space; `cpu_s` is processor time, `timeout_s` wall-clock time.
    """

    bytes: int = 25 * 1024 * 1024
    pixels: int = 50_000_000
    frames: int = 1_000
    pages: int = 100
    chars: int = 400_000
    memory_bytes: int = 1024 * 1024 * 1024
    cpu_s: int = 30
    timeout_s: float = 60.0


class Inspection(BaseModel):
    """What was found: either a type with its measures, or a refusal.

    `model_type` is the type of the rendition that follows on standard output; `text` is that of a
    text file, as data in a prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refusal: FileRefusal | None = None
    content_type: ContentType = TEXT_TYPE
    sha256: str = ""
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    tokens: int = 0
    model_type: str | None = None
    text: str | None = None
