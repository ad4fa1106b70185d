"""Plain text and Markdown: how bytes are decoded, and which are not text."""

# ruff: noqa: RUF001 -- texts in several scripts

import codecs
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.result import Err, Ok
from services.knowledge.extraction.documents import ExtractionRefusal
from services.knowledge.extraction.plain_text import decoded, extract_plain_text

bounded = settings(database=None, deadline=None, max_examples=100)
MANY = 1_000_000


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße, שבת, 世界".encode(), "Grüße, שבת, 世界"),
        (codecs.BOM_UTF8 + "é".encode(), "é"),
        (codecs.BOM_UTF16_LE + "é\n👋".encode("utf-16-le"), "é\n👋"),
        (codecs.BOM_UTF16_BE + "é\n👋".encode("utf-16-be"), "é\n👋"),
        (codecs.BOM_UTF32_LE + "é\n👋".encode("utf-32-le"), "é\n👋"),
        (codecs.BOM_UTF32_BE + "é\n👋".encode("utf-32-be"), "é\n👋"),
        (b"# Heading\r\n\r\n- one\r- two\n", "# Heading\n\n- one\n- two\n"),
        ("\u200fשבת\u200e (1)".encode(), "\u200fשבת\u200e (1)"),
    ],
)
def test_text_is_read_in_the_encoding_of_its_mark(data: bytes, text: str) -> None:
    assert Ok(text) == extract_plain_text(data, max_chars=MANY)


def test_a_stray_nul_is_replaced() -> None:
    text = "a word " * 100
    assert Ok(text + "\ufffd") == extract_plain_text(text.encode() + b"\0", max_chars=MANY)


@pytest.mark.parametrize("data", [b"", b" \r\n\t", codecs.BOM_UTF8, "\u200b\u200f\u2060".encode()])
def test_a_text_without_anything_to_read_is_empty(data: bytes) -> None:
    assert Err(ExtractionRefusal.EMPTY) == extract_plain_text(data, max_chars=MANY)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\x7fELF\x02\x01\x01" + bytes(9),
        codecs.BOM_UTF16_LE + b"\x00\xd8a\x00",
        codecs.BOM_UTF16_LE + b"odd",
        b"%PDF-1.7\n1 0 obj\n",
        b"{\\rtf1 Hello}",
    ],
)
def test_bytes_that_are_not_text_are_rejected(data: bytes) -> None:
    assert Err(ExtractionRefusal.NOT_ITS_TYPE) == extract_plain_text(data, max_chars=MANY)


JAPANESE = "この文書は、Debian の開発者が知っておくべき手続きと資源を説明しています。"
CHINESE = "本文档的目的是为 Debian 开发人员提供推荐的程序和可用资源的概述。"
RUSSIAN = "Сегодня хорошая погода, и мы пойдём гулять в парк со всеми друзьями."
GERMAN = (
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und "
    "Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen. Für größere "
    "Änderungen prüfen Sie zuerst den Schlüssel; später können Sie über das Menü zurück."
)


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (CHINESE * 2, "gbk"),
        (RUSSIAN, "windows-1251"),
        (RUSSIAN * 2, "koi8-r"),
        (GERMAN, "windows-1252"),
    ],
)
def test_a_charset_that_is_clear_is_recognised(text: str, charset: str) -> None:
    assert Ok(text) == extract_plain_text(text.encode(charset), max_chars=MANY)


@pytest.mark.parametrize(
    "data",
    [
        b"caf\xe9",
        "Grüße".encode("cp1252"),
        "Zażółć".encode("cp1250"),
        b"10 \xa3",
        b"\xed\xa0\x80 half",
    ],
)
def test_a_charset_that_is_unclear_is_asked_for(data: bytes) -> None:
    assert Err(ExtractionRefusal.UNKNOWN_CHARSET) == extract_plain_text(data, max_chars=MANY)


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text",
    [
        "All human beings are born free and equal in dignity and rights.\n" * 3,
        "Все люди рождаются свободными и равными в своём достоинстве и правах.\n" * 3,
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。" * 3,
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.\n" * 3,
    ],
    ids=["English", "Russian", "Japanese", "Greek"],
)
def test_utf_16_needs_no_mark(text: str, charset: str) -> None:
    data = text.encode(charset)

    assert extract_plain_text(data, max_chars=10_000) == Ok(text)
    assert decoded(data) == (text, charset)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_not_utf_16(seed: int) -> None:
    data = random.Random(seed).randbytes(4_000)

    assert extract_plain_text(data, max_chars=10_000) == Err(ExtractionRefusal.NOT_ITS_TYPE)


def test_a_text_over_the_bound_is_too_large() -> None:
    assert Ok("a" * 9) == extract_plain_text(b"a" * 9, max_chars=9)
    assert Err(ExtractionRefusal.TOO_LARGE) == extract_plain_text(b"a" * 10, max_chars=9)


@bounded
@given(st.binary())
def test_whatever_the_bytes_the_text_can_be_stored(data: bytes) -> None:
    result = extract_plain_text(data, max_chars=MANY)
    if isinstance(result, Ok):
        assert "\0" not in result.value
        assert result.value.encode()
