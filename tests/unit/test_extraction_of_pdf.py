"""PDF files: their text, and what each kind of file without text is refused for."""

# ruff: noqa: RUF001 -- texts in several scripts

import pytest

from schema.result import Err, Ok
from services.knowledge.extraction.documents import ExtractionLimits, ExtractionRefusal
from services.knowledge.extraction.pdf_text import (
    extract_pdf,
    join_hyphenated,
    spell_ligatures,
)
from tests.fixtures import documents

LIMITS = ExtractionLimits(pages=5, text_chars=100)
MANY = ExtractionLimits()
JAPANESE = "開発者リファレンスへようこそ。"
CHINESE = "开发者参考手册，欢迎使用。"
TRADITIONAL = "開發者參考手冊，歡迎使用。"
KOREAN = "개발자 참고서에 오신 것을 환영합니다."
PROSE = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason "
    "and conscience and should act towards one another in a spirit of brotherhood. "
)


def test_pages_are_read_in_their_order() -> None:
    assert Ok("One\n\nTwo") == extract_pdf(documents.pdf("One", "Two"), LIMITS)


@pytest.mark.parametrize(
    ("encoding", "ordering", "codec", "text"),
    [
        ("90ms-RKSJ-H", "Japan1", "cp932", JAPANESE),
        ("90ms-RKSJ-V", "Japan1", "cp932", JAPANESE),
        ("EUC-H", "Japan1", "euc_jp", JAPANESE),
        ("UniJIS-UTF16-H", "Japan1", "utf-16-be", JAPANESE),
        ("GBK-EUC-H", "GB1", "gbk", CHINESE),
        ("UniGB-UCS2-H", "GB1", "utf-16-be", CHINESE),
        ("ETen-B5-H", "CNS1", "big5", TRADITIONAL),
        ("KSCms-UHC-H", "Korea1", "cp949", KOREAN),
    ],
)
def test_fonts_of_east_asian_character_collections_are_read(
    encoding: str, ordering: str, codec: str, text: str
) -> None:
    file = documents.pdf_in_a_cid_font(text.encode(codec), encoding=encoding, ordering=ordering)
    assert Ok(text) == extract_pdf(file, LIMITS)


def test_words_that_are_apart_by_position_alone_are_apart() -> None:
    file = documents.pdf_of_words(["Der", "größte", "Hund"], ["bellt", "über", "Nacht."])
    assert Ok("Der größte Hund\nbellt über Nacht.") == extract_pdf(file, LIMITS)


def test_text_outside_of_the_page_is_left_out() -> None:
    shown = b"BT /F1 12 Tf 72 720 Td (Seen) Tj 0 5000 Td (Unseen) Tj ET"
    assert Ok("Seen") == extract_pdf(documents.pdf_of_streams([documents.stream(shown)]), LIMITS)


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("einge\x02bunden", "eingebunden"),
        ("einge\x02bunden. An-gebunden", "eingebunden. An-gebunden"),
        ("ein well\x02known, kein well-known", "ein well-known, kein well-known"),
        ("COM\x02MANDS and COMMANDS", "COMMANDS and COMMANDS"),
        ("MS\x02DOS, LDAP\x02Server", "MS-DOS, LDAP-Server"),
        ("https://x.org/debian\x02faq/a.html", "https://x.org/debian-faq/a.html"),
        ("Kernel\x02Konfiguration", "Kernel-Konfiguration"),
        ("a \x02 b\x02", "a - b-"),
    ],
)
def test_a_hyphen_that_only_breaks_a_word_is_taken_out(text: str, joined: str) -> None:
    assert join_hyphenated(text) == joined


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("di\x1berent, \x1crst, \x1dow", "different, first, flow"),
        ("o\x1ece, ba\x1fed", "office, baffled"),
        ("o\x1b, Gru\x1b", "off, Gruff"),
        ("1 \x1c 2, \x1b[2J", "1 \x1c 2, \x1b[2J"),
    ],
)
def test_ligatures_that_are_codes_of_a_font_are_letters(text: str, spelt: str) -> None:
    assert spell_ligatures(text) == spelt


def test_a_text_of_wrong_letters_is_garbled() -> None:
    shifted = "".join(chr(ord(char) + 3) if char.isalpha() else char for char in PROSE)
    assert Err(ExtractionRefusal.GARBLED) == extract_pdf(documents.pdf(*[shifted] * 3), MANY)
    assert isinstance(extract_pdf(documents.pdf(*[PROSE] * 3), MANY), Ok)


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
        documents.pdf_with_deep_objects(5_000),
    ],
)
def test_damaged_pdfs_are_rejected(data: bytes) -> None:
    assert Err(ExtractionRefusal.NOT_ITS_TYPE) == extract_pdf(data, LIMITS)


def test_a_scanned_file_has_no_text() -> None:
    assert Err(ExtractionRefusal.NO_TEXT) == extract_pdf(documents.pdf("", ""), LIMITS)


def test_a_file_with_too_much_text_is_too_large() -> None:
    text = "a" * 60
    assert Err(ExtractionRefusal.TOO_LARGE) == extract_pdf(documents.pdf(text, text), LIMITS)


def test_a_file_of_too_many_pages_is_too_complex() -> None:
    assert Err(ExtractionRefusal.TOO_COMPLEX) == extract_pdf(documents.pdf(*["page"] * 6), LIMITS)
