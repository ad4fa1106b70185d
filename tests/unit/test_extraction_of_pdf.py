"""PDF files: their text, and what each kind of file without text is refused for."""

import logging
from collections.abc import Iterator

import pytest

from schema.result import Err, Ok
from services.knowledge.extraction.documents import ExtractionLimits, ExtractionRefusal
from services.knowledge.extraction.pdf_text import extract_pdf
from tests.fixtures import documents

LIMITS = ExtractionLimits(stream_bytes=1_000_000, pages=5, text_chars=100)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the library's remarks on broken files out of the output."""
    logger = logging.getLogger("pypdf")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


def test_pages_are_read_in_their_order() -> None:
    assert Ok("One\n\nTwo") == extract_pdf(documents.pdf("One", "Two"), LIMITS)


def test_a_file_that_opens_without_a_password_is_read() -> None:
    assert Ok("Open") == extract_pdf(documents.encrypted_pdf("Open", password=""), LIMITS)


def test_a_file_that_needs_a_password_is_encrypted() -> None:
    locked = documents.encrypted_pdf("Locked", password="secret")
    assert Err(ExtractionRefusal.ENCRYPTED) == extract_pdf(locked, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"Hello",
        b"\n" * 1024 + b"%PDF-1.7",
        b"%PDF-1.7\n",
        b"%PDF-1.7\n" + bytes(range(256)) * 4,
        documents.pdf("Cut short")[:200],
        documents.pdf_with_a_loop_of_pages(),
    ],
)
def test_damaged_pdfs_are_rejected(data: bytes) -> None:
    assert Err(ExtractionRefusal.NOT_ITS_TYPE) == extract_pdf(data, LIMITS)


def test_a_scanned_file_has_no_text() -> None:
    assert Err(ExtractionRefusal.NO_TEXT) == extract_pdf(documents.pdf("", ""), LIMITS)


def test_a_file_with_too_much_text_is_too_large() -> None:
    text = "a" * 60
    assert Err(ExtractionRefusal.TOO_LARGE) == extract_pdf(documents.pdf(text, text), LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        documents.pdf(*["page"] * 6),
        documents.bomb(2_000_000),
        documents.bomb(2_000_000, layers=2),
        documents.pdf_with_deep_objects(5_000),
    ],
    ids=["pages", "bomb", "bomb in a bomb", "depth"],
)
def test_a_file_that_needs_too_many_resources_is_too_complex(data: bytes) -> None:
    assert Err(ExtractionRefusal.TOO_COMPLEX) == extract_pdf(data, LIMITS)
