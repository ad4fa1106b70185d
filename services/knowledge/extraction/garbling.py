"""Detects text that has become garbled: letters that nobody would write next to each other.

Fonts of PDFs may not say which characters they show, and files may be read in the wrong charset:
what comes out then are letters, but not those that were written.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import sqrt
from string import punctuation
from typing import Final
from unicodedata import category

_WINDOW: Final = 2_000
"""Characters that are judged together, so that a garbled chapter among good ones is noticed."""
_GARBLED_WINDOWS: Final = 0.2
_LEAST_LETTERS: Final = 40
"""Nothing can be said of fewer letters."""
_WORD: Final = re.compile(r"[^\W\d_]+")
_REPEATED: Final = re.compile(rf"([{re.escape(punctuation)}])\1+")
# Base64, keys and hashes are no words of any language.
_DUMP: Final = re.compile(r"\b(?=[A-Za-z+/=]*\d)[A-Za-z0-9+/=]{32,}")


def is_garbled(text: str) -> bool:
    """Return whether a part of the text that matters is implausible in every language."""
    return garbled_share(text) > _GARBLED_WINDOWS


def garbled_share(text: str) -> float:
    """Return which share of the text is implausible in every language."""
    judged = [signs(text[start : start + _WINDOW]) for start in range(0, len(text), _WINDOW)]
    return sum(map(bool, judged)) / max(len(judged), 1)


def signs(text: str) -> list[str]:
    """Return the names of the signs that a short text is garbled."""
    unreadable, symbols = _unreadable(text)
    if unreadable > 0.1 or symbols > 0.6:
        return ["unreadable"]
    words = _WORD.findall(_DUMP.sub(" ", text))
    if sum(map(len, words)) < _LEAST_LETTERS:
        return []
    return [name for name, (share, most) in _SIGNS.items() if share(words) > most]


def _unreadable(text: str) -> tuple[float, float]:
    """Return the shares of characters that stand for nothing, and of punctuation.

    Leaders and rules are counted once.
    """
    seen = Counter(_REPEATED.sub(r"\1", "".join(text.split())))
    total = sum(seen.values())
    if not total:
        return 0.0, 0.0
    nothing = sum(count for char, count in seen.items() if _stands_for_nothing(char))
    return nothing / total, sum(seen[char] for char in punctuation) / total


@lru_cache(10_000)
def _stands_for_nothing(char: str) -> bool:
    return char == "\ufffd" or category(char) in {"Co", "Cn", "Cs", "Cc"}


# Where a script, or a group of scripts that are written together, begins. East Asian letters are
# written next to any other.
_EAST_ASIAN: Final = "east asian"
_SPACELESS: Final = frozenset((_EAST_ASIAN, "thai", "lao", "tibetan", "burmese", "khmer"))
_BLOCKS: Final[Sequence[tuple[int, str]]] = (
    *((0x0000, "latin"), (0x02B0, ""), (0x0370, "greek"), (0x0400, "cyrillic")),
    *((0x0530, "armenian"), (0x0590, "hebrew"), (0x0600, "arabic"), (0x0700, "syriac")),
    *((0x0750, "arabic"), (0x0780, "thaana"), (0x07C0, "nko"), (0x0800, "aramaic")),
    *((0x0870, "arabic"), (0x0900, "devanagari"), (0x0980, "bengali"), (0x0A00, "gurmukhi")),
    *((0x0A80, "gujarati"), (0x0B00, "odia"), (0x0B80, "tamil"), (0x0C00, "telugu")),
    *((0x0C80, "kannada"), (0x0D00, "malayalam"), (0x0D80, "sinhala"), (0x0E00, "thai")),
    *((0x0E80, "lao"), (0x0F00, "tibetan"), (0x1000, "burmese"), (0x10A0, "georgian")),
    *((0x1100, _EAST_ASIAN), (0x1200, "ethiopic"), (0x13A0, "cherokee"), (0x1400, "canadian")),
    *((0x1680, "other"), (0x1780, "khmer"), (0x1800, "mongolian"), (0x18B0, "canadian")),
    *((0x1900, "other"), (0x1D00, "latin"), (0x1F00, "greek"), (0x2000, "")),
    *((0x2C00, "other"), (0x2C60, "latin"), (0x2C80, "other"), (0x2E80, _EAST_ASIAN)),
    *((0xA000, "yi"), (0xA720, "latin"), (0xA800, "other"), (0xAB30, "latin")),
    *((0xAB70, "cherokee"), (0xAC00, _EAST_ASIAN), (0xD800, "other"), (0xF900, _EAST_ASIAN)),
    *((0xFB00, "latin"), (0xFB13, "armenian"), (0xFB1D, "hebrew"), (0xFB50, "arabic")),
    *((0xFE00, ""), (0xFE70, "arabic"), (0xFF00, ""), (0x10000, "other")),
    *((0x1D400, ""), (0x1D800, "other"), (0x20000, _EAST_ASIAN)),
)
_STARTS: Final = [start for start, _ in _BLOCKS]


@lru_cache(50_000)
def _script(char: str) -> str:
    return _BLOCKS[bisect_right(_STARTS, ord(char)) - 1][1]


def _mixed(words: Sequence[str]) -> float:
    """Return the share of letters in words of several scripts."""
    return _share(words, lambda word: len({*map(_script, word)} - {"", _EAST_ASIAN}) > 1)


def _glued(words: Sequence[str]) -> float:
    """Return the share of letters in words too long for a script that has spaces."""
    return _share(words, lambda word: len(word) > 40 and not _may_be_long(word))


def _may_be_long(word: str) -> bool:
    """Return whether a word is of a script without spaces, or a sequence such as of a gene."""
    return (word.isascii() and (word.isupper() or len(set(word)) < 8)) or not _SPACELESS.isdisjoint(
        map(_script, word)
    )


def _foreign(words: Sequence[str]) -> float:
    """Return the share of letters in words of accented letters alone: Cyrillic read as Latin."""
    return _share(
        words, lambda word: len(word) > 2 and all("\x7f" < char < "\u0250" for char in word)
    )


def _inverted(words: Sequence[str]) -> float:
    """Return the share of letters in words where a small letter comes before a capital one.

    Among words with letters that are not ASCII: names in code are written so.
    """
    cased = [
        word for word in words if not word.isascii() and _SPACELESS.isdisjoint(map(_script, word))
    ]
    if sum(map(len, cased)) < 2 * _LEAST_LETTERS:
        return 0.0
    return _share(cased, lambda word: any(a.islower() and b.isupper() for a, b in pairwise(word)))


# Letters that no word begins with: final forms in Hebrew, teh marbuta in Arabic.
_NEVER_FIRST: Final = frozenset("\u05da\u05dd\u05df\u05e3\u05e5\u0629")


def _reversed(words: Sequence[str]) -> float:
    """Return the share of right-to-left words that begin with what only ends words."""
    written = [word for word in words if len(word) > 2 and _script(word[0]) in {"arabic", "hebrew"}]
    if len(written) < _LEAST_LETTERS:
        return 0.0
    return sum(word[0] in _NEVER_FIRST for word in written) / len(written)


def _rare(words: Sequence[str]) -> float:
    """Return the share of ideographs and Hangul that hardly anybody knows."""
    known = _known_ideographs()
    ideographs = [
        char
        for word in words
        for char in word
        if "\u3400" <= char < "\ud7b0" or char > "\U00020000"
    ]
    rare = sum(char not in known for char in ideographs)
    return rare / len(ideographs) if len(ideographs) >= _LEAST_LETTERS else 0.0


@lru_cache(1)
def _known_ideographs() -> frozenset[str]:
    """Return what national standards put first: what schools teach in China, Japan and Korea."""
    rows = (
        ("gb2312", 0xB0, 0xD7),
        ("euc_jp", 0xB0, 0xCF),
        ("euc_kr", 0xB0, 0xFD),
        ("big5", 0xA4, 0xC6),
    )
    return frozenset(
        char
        for codec, first, last in rows
        for row in range(first, last + 1)
        for cell in (*range(0x40, 0x7F), *range(0xA1, 0xFF))
        for char in bytes((row, cell)).decode(codec, "ignore")
    )


# How often letters are used in European languages on average, from a to z, in thousandths.
_USUAL: Final = (
    *(88, 14, 32, 40, 135, 14, 20, 24, 75, 4, 12, 46, 30),
    *(75, 66, 27, 4, 69, 63, 70, 35, 14, 9, 3, 9, 7),
)


def _shifted(words: Sequence[str]) -> float:
    """Return how unlike any language the plain Latin letters are used, from 0 to 1."""
    plain = [
        char
        for word in words
        if len(word) > 3
        for char in word
        if char.isascii() and char.isalpha()
    ]
    used = Counter("".join(plain).lower())
    letters = [used[char] for char in "abcdefghijklmnopqrstuvwxyz"]
    # Variables of formulas, parts of numbers and genes are no language.
    if len(plain) < max(150, sum(map(len, words)) / 2) or sum(map(bool, letters)) < 12:
        return 0.0
    alike = sum(a * b for a, b in zip(letters, _USUAL, strict=True))
    return 1 - alike / sqrt(sum(a * a for a in letters) * sum(b * b for b in _USUAL))


def _share(words: Sequence[str], is_bad: Callable[[str], bool]) -> float:
    return sum(len(word) for word in words if is_bad(word)) / sum(map(len, words))


_SIGNS: Final[Mapping[str, tuple[Callable[[Sequence[str]], float], float]]] = {
    "mixed": (_mixed, 0.2),
    "glued": (_glued, 0.3),
    "foreign": (_foreign, 0.2),
    "inverted": (_inverted, 0.1),
    "reversed": (_reversed, 0.04),
    "rare": (_rare, 0.4),
    "shifted": (_shifted, 0.45),
}
