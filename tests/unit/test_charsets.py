"""Which charsets a text may name."""

import pytest

from services.knowledge.extraction.charsets import codec_of


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("utf-8", "utf-8"),
        ("UTF8", "utf-8"),
        ("latin-1", "cp1252"),
        ("x-sjis", "cp932"),
        ("GB2312", "gb18030"),
        ("ISO-8859-9", "cp1254"),
        ("Windows-1252", "cp1252"),
        ("us-ascii", "ascii"),
        ("shift_jis", "cp932"),
        ("euc-kr", "cp949"),
        ("macintosh", "mac-roman"),
    ],
)
def test_a_charset_is_known_by_its_names(charset: str, encoding: str) -> None:
    assert codec_of(charset) == encoding


@pytest.mark.parametrize(
    "charset", ["", "klingon", "hex", "rot13", "idna", "punycode", "undefined", "utf-7", "a\x00b"]
)
def test_charsets_unsuited_to_text_are_unknown(charset: str) -> None:
    with pytest.raises(LookupError):
        codec_of(charset)
