"""Which charsets a text may name."""

import pytest

from api.document_bodies import text_encoding


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("utf-8", "utf-8"),
        ("UTF8", "utf-8"),
        ("latin-1", "iso8859-1"),
        ("Windows-1252", "cp1252"),
        ("us-ascii", "ascii"),
        ("shift_jis", "shift_jis"),
        ("euc-kr", "euc_kr"),
        ("macintosh", "mac-roman"),
    ],
)
def test_a_charset_is_known_by_its_names(charset: str, encoding: str) -> None:
    assert text_encoding(charset) == encoding


@pytest.mark.parametrize(
    "charset", ["", "klingon", "hex", "rot13", "idna", "punycode", "undefined", "utf-7", "a\x00b"]
)
def test_charsets_unsuited_to_text_are_unknown(charset: str) -> None:
    with pytest.raises(LookupError):
        text_encoding(charset)
