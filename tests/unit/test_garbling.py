"""Text that has become garbled: what shows it, and what looks odd but is not."""

# ruff: noqa: RUF001 -- texts in several scripts

import base64
import random

import pytest

from services.knowledge.extraction.garbling import is_garbled

GERMAN = "Die größten Gefäße über den Dächern wären für süße Früchte geeignet, hieß es später. "
RUSSIAN = "Сегодня хорошая погода, и мы пойдём гулять в парк со всеми нашими друзьями. "
JAPANESE = "この文書は、Debian の開発者が知っておくべき手続きと資源を説明しています。"
CHINESE = "本文档的目的是为 Debian 开发人员提供推荐的程序和可用资源的概述。"
ARABIC = "كل إنسان يولد حرا ومتساويا في الكرامة والحقوق. "
HEBREW = "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. "
CHANCE = random.Random(12)


def drawn(first: int, last: int) -> str:
    return "".join(chr(CHANCE.randrange(first, last)) for _ in range(3_000))


def shifted(text: str, by: int) -> str:
    return "".join(chr(ord(char) + by) if char.isascii() and char > " " else char for char in text)


@pytest.mark.parametrize(
    "text",
    [
        GERMAN,
        RUSSIAN,
        JAPANESE,
        CHINESE,
        "道可道非常道名可名非常名無名天地之始有名萬物之母故常無欲以觀其妙常有欲以觀其徼",
        "大韓民國의 憲法은 國民의 權利를 保障한다. 民主共和國",
        "สวัสดีชาวโลกภาษาไทยไม่มีช่องว่างระหว่างคำและเราต้องอ่านให้ถูกต้อง",
        "בראשית Genesis ברא created אלהים God ",
        ARABIC,
        HEBREW,
        "ˈðɪs ɪz ə ˈtɛst əv fəˈnɛtɪk trænsˈkrɪpʃn̩ ",
        "Let α and β be angles; then sin α cos β = γ for all Δx → 0. The θ-function φ(x), 5 µm. ",
        "TCP RST SYN ACK HTTP TLS DNS DHCP BGP RFC NTP SSH FTP SMTP LDAP XML XSD HTML CSS ",
        "mov %rax,%rbx; cmp $0x7f,%edx; jne 4005d0 <_start+0x10>; push %rbp; xor %eax,%eax\n",
        "def is_word(text: str) -> bool:\n    return bool(text) and not text.isdigit()\n",
        "Chapter 1 . . . . . . . . . . . . . . . . . . . . 7\n--------------------------------\n",
        "👩\u200d👩\u200d👧 🇩🇪 🎉 ",
        "3.14 2.72 1.41 1.73 0.58 1.62\n",
        "ACGTACCATGGTACCATGCATGCAAATTTGCGC",
        base64.b64encode(CHANCE.randbytes(3_000)).decode(),
        "",
    ],
)
def test_what_was_written_is_not_garbled(text: str) -> None:
    assert not is_garbled(text * 40)


@pytest.mark.parametrize(
    "text",
    [
        RUSSIAN.encode("cp1251").decode("latin-1"),
        RUSSIAN.encode("cp866").decode("cp1251"),
        RUSSIAN.encode().decode("latin-1"),
        JAPANESE.encode("shift_jis").decode("gb18030", "replace"),
        JAPANESE.encode("shift_jis").decode("latin-1"),
        CHINESE.encode("gbk").decode("latin-1"),
        "ୈ 1 ষ ͜ͷจॻ͕ѻ͏ൣғʹ͍ͭͯ ύοέʔδϝϯςφͷ੹຿ ",
        "في Fن مrkbة بعwnان الySف ال”yqل , وÐلك إبAن ‹Cwة 1919 dR الاحtلال ",
        ARABIC[::-1],
        HEBREW[::-1],
        shifted(GERMAN, 3),
        shifted(GERMAN, 1),
        GERMAN.replace(" ", "").replace(",", "").replace(".", ""),
        drawn(0xE000, 0xE800),
        drawn(0x4E00, 0x9FFF),
        drawn(0x0100, 0x2000),
        drawn(0x01, 0x20),
        drawn(0x21, 0x30),
        "\ufffd\ufffd\ufffd a ",
        JAPANESE + drawn(0xE000, 0xE100),
    ],
)
def test_letters_that_nobody_would_write_are_garbled(text: str) -> None:
    assert is_garbled(text * 40)


def test_one_odd_page_among_many_is_no_sign() -> None:
    assert not is_garbled(GERMAN * 400 + drawn(0xE000, 0xE800))
