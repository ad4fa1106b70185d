"""The process that inspects one file: its limits, and its exchange with its parent.

Run as `python -m services.files.inspection_process LIMITS CHARSET`, the limits as JSON; the file
comes on standard input. An `Inspection` leaves on standard output, on one line, and behind it the
rendition for models.
"""

import hashlib
import re
import sys
from contextlib import closing
from typing import Final

from pydantic import TypeAdapter

from schema.files import PDF_TYPE, TEXT_TYPE
from schema.result import Err
from services.files.inspection import FileLimits, FileRefusal, Inspection
from services.knowledge.extraction.documents import ExtractionLimits, ExtractionRefusal
from services.knowledge.extraction.parser_process import restrict_this_process
from services.prompts.tokens import tokens_of

_NICENESS: Final = 5
"""A person waits for it, but others wait, too."""

_SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_PDF: Final = re.compile(rb"\A(?:\xef\xbb\xbf)?\s{0,16}%PDF-")
_SVG: Final = re.compile(
    r"\A(?:<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg.*?>|\s)*<(?:\w+:)?svg[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_SEARCHED_FOR_SVG: Final = 4_096
_TOKENS_PER_PAGE: Final = 1_600
"""Of the picture of a page of a PDF; its text counts beside it."""

_OF_TEXT: Final = {
    ExtractionRefusal.EMPTY: FileRefusal.EMPTY,
    ExtractionRefusal.TOO_LARGE: FileRefusal.TOO_MANY_CHARACTERS,
    ExtractionRefusal.UNKNOWN_CHARSET: FileRefusal.UNKNOWN_CHARSET,
}


def main() -> None:
    """Inspect the file on standard input and write what was found."""
    limits_json, charset = sys.argv[1:]
    limits = TypeAdapter(FileLimits).validate_json(limits_json)
    restrict_this_process(
        ExtractionLimits(
            memory_bytes=limits.memory_bytes, cpu_s=limits.cpu_s, timeout_s=limits.timeout_s
        ),
        niceness=_NICENESS,
    )
    # One byte more than it may have: its size was checked before.
    data = sys.stdin.buffer.read(limits.bytes + 1)
    sys.stdout.buffer.write(inspected(data, limits, charset=charset))


def inspected(data: bytes, limits: FileLimits, *, charset: str = "") -> bytes:
    """Return the bytes for standard output."""
    try:
        found, rendition = _inspect(data, limits, charset)
    except MemoryError:
        found, rendition = Inspection(refusal=FileRefusal.TOO_COMPLEX), b""
    digest = hashlib.sha256(data).hexdigest()
    head = found.model_copy(update={"sha256": digest}).model_dump_json(exclude_defaults=True)
    return head.encode() + b"\n" + rendition


def needs_parser(data: bytes) -> bool:
    """Whether it is for a library that a hostile file may break."""
    return _is_image(data) or _PDF.match(data) is not None


def _is_image(data: bytes) -> bool:
    return data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _inspect(data: bytes, limits: FileLimits, charset: str) -> tuple[Inspection, bytes]:
    if not data.strip():
        return Inspection(refusal=FileRefusal.EMPTY), b""
    if _is_image(data):
        # Imported where it is needed: each inspection is a process of its own.
        from services.files.images import inspect_image  # noqa: PLC0415 -- see above

        return inspect_image(data, limits)
    if _PDF.match(data):
        return _inspect_pdf(data, limits), b""
    return _inspect_text(data, limits, charset), b""


def _inspect_pdf(data: bytes, limits: FileLimits) -> Inspection:
    from pypdfium2 import PdfDocument, PdfiumError  # type: ignore[import-untyped]  # noqa: PLC0415 -- as above
    from pypdfium2.raw import (  # type: ignore[import-untyped]  # noqa: PLC0415 -- as above
        FPDF_ERR_PASSWORD,
        FPDF_ERR_SECURITY,
        FPDF_GetSecurityHandlerRevision,
    )

    try:
        with PdfDocument(data) as document:
            # Providers take none that is encrypted, even if it opens without a password.
            if FPDF_GetSecurityHandlerRevision(document.raw) != -1:
                return Inspection(refusal=FileRefusal.ENCRYPTED)
            pages = len(document)
            if pages > limits.pages:
                return Inspection(refusal=FileRefusal.TOO_MANY_PAGES)
            if pages == 0:
                return Inspection(refusal=FileRefusal.BROKEN)
            tokens = 0
            for number in range(pages):
                with closing(document[number]) as page, closing(page.get_textpage()) as written:
                    tokens += _TOKENS_PER_PAGE + tokens_of(written.get_text_bounded())
    except PdfiumError as error:
        is_locked = error.err_code in {FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY}
        return Inspection(refusal=FileRefusal.ENCRYPTED if is_locked else FileRefusal.BROKEN)
    return Inspection(content_type=PDF_TYPE, pages=pages, tokens=tokens)


def _inspect_text(data: bytes, limits: FileLimits, charset: str) -> Inspection:
    from services.knowledge.extraction.charsets import codec_of, marked  # noqa: PLC0415 -- as above
    from services.knowledge.extraction.plain_text import (  # noqa: PLC0415 -- as above
        extract_plain_text,
    )
    from services.prompts.quotes import as_data  # noqa: PLC0415 -- as above

    if charset:
        # A byte order mark overrides what a client says.
        try:
            data = (marked(data) or data.decode(codec_of(charset))).encode()
        except (LookupError, UnicodeError):
            return Inspection(refusal=FileRefusal.UNKNOWN_CHARSET)
    text = extract_plain_text(data, max_chars=limits.chars)
    if isinstance(text, Err):
        return Inspection(refusal=_OF_TEXT.get(text.error, FileRefusal.UNKNOWN_TYPE))
    if _SVG.match(text.value[:_SEARCHED_FOR_SVG]):
        return Inspection(refusal=FileRefusal.SVG)
    quoted = as_data(text.value)
    return Inspection(content_type=TEXT_TYPE, tokens=tokens_of(quoted), text=quoted)


if __name__ == "__main__":
    main()
