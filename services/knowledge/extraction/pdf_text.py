"""Reads application/pdf: the text of its pages, under tight limits of the library.

Time and memory are limited by the process that it runs in: the library bounds single
streams and trees, not the sum of them. No picture is decoded, and nothing is recognised in one.
"""

from io import BytesIO
from typing import Final

from pypdf import Configuration, PdfReader, apply_configuration
from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

from schema.result import Err, Ok, Result
from services.knowledge.extraction.documents import ExtractionLimits, ExtractionRefusal
from services.knowledge.extraction.plain_text import finish

_HEADER: Final = b"%PDF-"
_HEADER_WITHIN: Final = 1024
_BETWEEN_PAGES: Final = "\n\n"


def extract_pdf(data: bytes, limits: ExtractionLimits) -> Result[str, ExtractionRefusal]:
    """Return the text of a PDF's pages in their order, a blank line between them.

    A PDF that opens without a password is read, whatever its author permits.

    Errors: NOT_ITS_TYPE, TOO_LARGE, TOO_COMPLEX, ENCRYPTED, NO_TEXT.
    Source: https://pypdf.readthedocs.io/en/stable/user/security.html
    """
    if _HEADER not in data[:_HEADER_WITHIN]:
        return Err(ExtractionRefusal.NOT_ITS_TYPE)
    try:
        with apply_configuration(_configuration(limits)):
            pages = _read_pages(data, limits)
    except Exception as error:  # noqa: BLE001 -- the library says that broken files raise anything
        return Err(_refusal(error))
    match pages:
        case Ok(text):
            unreadable = ExtractionRefusal.NO_TEXT
            return finish(text, max_chars=limits.text_chars, unreadable=unreadable)
        case Err():
            return pages


def _configuration(limits: ExtractionLimits) -> Configuration:
    return Configuration(
        array_based_stream_maximum_output_length=limits.stream_bytes,
        brotli_maximum_output_length=limits.stream_bytes,
        lzw_maximum_output_length=limits.stream_bytes,
        run_length_maximum_output_length=limits.stream_bytes,
        zlib_maximum_output_length=limits.stream_bytes,
        page_tree_maximum_entries=2 * limits.pages,  # pages, and the nodes that they hang from
        jbig2dec_binary=None,  # no other program is started for a picture
    )


def _read_pages(data: bytes, limits: ExtractionLimits) -> Result[str, ExtractionRefusal]:
    pages = PdfReader(BytesIO(data)).pages
    if len(pages) > limits.pages:
        return Err(ExtractionRefusal.TOO_COMPLEX)
    texts: list[str] = []
    chars = 0
    for page in pages:
        text = page.extract_text()
        chars += len(text)
        if chars > limits.text_chars:
            return Err(ExtractionRefusal.TOO_LARGE)
        texts.append(text)
    return Ok(_BETWEEN_PAGES.join(texts))


def _refusal(error: BaseException) -> ExtractionRefusal:
    """Return what an error says of the file: the library wraps some errors in its own."""
    match error:
        case LimitReachedError() | RecursionError() | MemoryError():
            return ExtractionRefusal.TOO_COMPLEX
        case DependencyError() | FileNotDecryptedError():
            return ExtractionRefusal.ENCRYPTED
        case _ if error.__cause__ is not None:
            return _refusal(error.__cause__)
        case _:
            return ExtractionRefusal.NOT_ITS_TYPE
