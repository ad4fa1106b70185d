"""Web pages: the text that a reader would see."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.result import Err, Ok
from services.knowledge.extraction.documents import ExtractionLimits, ExtractionRefusal
from services.knowledge.extraction.html_text import extract_html

bounded = settings(database=None, deadline=None, max_examples=100)
LIMITS = ExtractionLimits()


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<title>Title</title><h1>Heading</h1><p>One<p>Two", "Title\n\nHeading\n\nOne\n\nTwo"),
        ("<p>a\n  <b>b</b>c <i> d</i>\t</p>", "a bc d"),
        ("<p>one<br>two<br><br>three", "one\ntwo\n\nthree"),
        ("<ul><li>one<li>two</ul>", "one\ntwo"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", "a\tb\n1\t2"),
        ("<pre>  def f():\n    pass</pre>", "  def f():\n    pass"),
        ("see <a href='https://example.org'>the page</a>.", "see the page."),
        ("&lt;b&gt; &amp; &eacute; &#128075;", "<b> & é 👋"),
        ("<p dir=rtl>\u200fשבת", "\u200fשבת"),
        ("a&#0;b&#xD800;c", "a\ufffdb\ufffdc"),
    ],
)
def test_blocks_become_lines(page: str, text: str) -> None:
    assert Ok(text) == extract_html(page.encode(), LIMITS)


@pytest.mark.parametrize(
    "unread",
    [
        "<script>x</script>",
        "<style>x</style>",
        "<noscript>x</noscript>",
        "<template>x</template>",
        "<!-- x -->",
        "<p hidden>x</p>",
        "<div style='color: red; DISPLAY : none'><p>x</div>",
        "<span style='visibility:hidden'>x</span>",
        "<svg><text>x</text></svg>",
        "<select><option>x</select>",
    ],
)
def test_invisible_text_is_not_read(unread: str) -> None:
    assert Ok("before\n\nafter") == extract_html(f"before{unread}<p>after".encode(), LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        "<p>é ж".encode(),
        codecs.BOM_UTF8 + "<meta charset=latin1><p>é ж".encode(),
        "<meta charset=windows-1251><p>ж".encode("windows-1251"),
        '<meta http-equiv=content-type content="text/html; charset=koi8-r">ж'.encode("koi8-r"),
        codecs.BOM_UTF16_LE + "<p>é ж".encode("utf-16-le"),
        "<meta charset=rot13><p>ж".encode(),
    ],
)
def test_a_page_is_read_in_the_encoding_that_it_declares(data: bytes) -> None:
    result = extract_html(data, LIMITS)
    assert isinstance(result, Ok)
    assert result.value[-1] == "ж"


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"PK\x03\x04" + bytes(40)])
def test_bytes_that_are_not_a_page_are_rejected(data: bytes) -> None:
    assert Err(ExtractionRefusal.NOT_ITS_TYPE) == extract_html(data, LIMITS)


def test_a_page_that_does_not_say_its_charset_is_read_if_that_is_clear() -> None:
    page = "<p>この文書は、Debian の開発者が知っておくべき手続きと資源を説明しています。"
    assert Ok(page[3:]) == extract_html(page.encode("shift_jis"), LIMITS)
    assert Err(ExtractionRefusal.UNKNOWN_CHARSET) == extract_html(b"<p>caf\xe9", LIMITS)


def test_a_page_that_names_a_wrong_charset_is_not_read() -> None:
    page = "<meta charset=latin1><p>" + "Сегодня хорошая погода. " * 9
    assert Err(ExtractionRefusal.UNKNOWN_CHARSET) == extract_html(page.encode("cp1251"), LIMITS)


@pytest.mark.parametrize("page", ["<script>app()</script>", "<p>&nbsp;", "<img src=a.png alt=x>"])
def test_a_page_without_visible_content_has_no_text(page: str) -> None:
    assert Err(ExtractionRefusal.NO_TEXT) == extract_html(page.encode(), LIMITS)


def test_a_page_with_too_much_text_is_too_large() -> None:
    limits = ExtractionLimits(text_chars=10)
    assert Err(ExtractionRefusal.TOO_LARGE) == extract_html(b"<p>" + b"a" * 11, limits)


def test_nesting_has_no_depth_at_which_reading_breaks() -> None:
    assert Ok("deep") == extract_html(b"<i>" * 20_000 + b"deep", LIMITS)


@bounded
@given(st.text(alphabet="<>/!-&;# =\"'abprtdiv\n\0\u200f\x85é", max_size=200))
def test_no_page_breaks_the_reader(page: str) -> None:
    result = extract_html(page.encode(), LIMITS)
    if isinstance(result, Ok):
        assert "\0" not in result.value
