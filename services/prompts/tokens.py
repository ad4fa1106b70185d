"""Estimates tokens by the characters of a text: what each costs depends on its script.

The costs are fitted to the counts of Anthropic's published tokenizer, npm's
`@anthropic-ai/tokenizer`, over 840 texts in 54 languages, source code and data, to be a little too
high rather than too low. Newer tokenizers differ: `correction.py` corrects by what the provider
counted.
"""

from collections.abc import Iterable
from math import ceil
from typing import Final

PER_MESSAGE: Final = 4
"""The tokens of a message's framing."""

THINKING_CHARS_PER_TOKEN: Final = 4
"""For thoughts, of which only the length is known."""

_LETTERS: Final = bytes((*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)))
_CAPITALS: Final = _LETTERS[:26]
_DIGITS: Final = b"0123456789"
_DIGITS_ALONE: Final = bytes(byte if byte in _DIGITS else 32 for byte in range(256))
_PUNCTUATION: Final = bytes(
    byte for byte in range(33, 127) if byte not in _LETTERS and byte not in _DIGITS
)

_LETTER: Final = 0.32
_WORD: Final = 0.22
_CAPITAL: Final = 0.19
_DIGIT: Final = 0.08
_NUMBER: Final = 1.75
_MARK: Final = 0.62
_LINE: Final = 0.72
# English has words of its own in the tokenizer, other languages pieces: `th` is what tells English
# from the others, `j`, `k` and `z` what is frequent in those with the shortest pieces.
_RARE: Final = 1.54
_ENGLISH: Final = 2.9
_MOST_ENGLISH: Final = 0.35
"""The largest part of the cost of letters and words that counts as saved by being English."""

# Of each character outside ASCII, by the page of 256 that it is on; pages that are not listed hold
# rare scripts, and cost what the first line says.
_COSTS: Final[tuple[tuple[float, Iterable[int]], ...]] = (
    (3.0, range(256)),
    (0.0, (0x00, *range(0xDC, 0xE0))),  # ASCII is counted apart; the second halves of pairs
    (1.62, (0x01, 0x02)),  # Latin
    (1.36, (0x03,)),  # Greek
    (0.68, (0x04,)),  # Cyrillic
    (1.1, (0x05,)),  # Hebrew
    (1.21, range(0x06, 0x09)),  # Arabic, Syriac
    (1.42, (0x09,)),  # Devanagari
    (3.39, (0x0A,)),  # Gurmukhi, Gujarati
    (2.24, (0x0B,)),  # Tamil, Odia
    (2.54, (0x0C, 0x0D)),  # Telugu, Kannada, Malayalam, Sinhala
    (1.92, (0x0E,)),  # Thai, Lao
    (1.4, (0x10,)),  # Burmese, Georgian
    (3.5, (0x1E,)),  # Latin of Vietnamese
    (0.6, (0x20,)),  # quotation marks and dashes
    (1.62, range(0x21, 0x2C)),  # signs
    (1.0, (0x30,)),  # kana, Chinese and Japanese punctuation
    (1.36, range(0x4E, 0xA0)),  # Chinese characters
    (1.34, range(0xAC, 0xD8)),  # Hangul
    (1.0, (0xFF,)),  # full-width letters, digits and punctuation
)
# By the first bytes in UTF-8: what shares a page with others, and costs so much more.
_DEARER: Final = (
    (1.14, (b"\xc2", b"\xc3")),  # Latin of western Europe, beside ASCII
    (3.5, (b"\xd2", b"\xd3")),  # Cyrillic of Kazakh, Mongolian and others
    (1.4, (b"\xd4", b"\xd5")),  # Armenian, beside Hebrew
    (0.8, (b"\xe0\xa6", b"\xe0\xa7")),  # Bengali, beside Devanagari
)


def _group_of_page() -> bytes:
    group_of = bytearray(256)
    for group, (_, pages) in enumerate(_COSTS):
        for page in pages:
            group_of[page] = group
    return bytes(group_of)


_GROUP_OF_PAGE: Final = _group_of_page()


def exact_tokens(text: str) -> float:
    """Return the estimate of a part of a text, for sums that are rounded once."""
    data = text.encode("utf-8", "surrogatepass")
    tokens = _ascii_tokens(data)
    if len(data) == len(text):
        return tokens
    # The first byte of each character, or of each half of one beyond 16 bits, is its page.
    pages = text.encode("utf-16-be", "surrogatepass")[::2].translate(_GROUP_OF_PAGE)
    tokens += sum(cost * pages.count(group) for group, (cost, _) in enumerate(_COSTS))
    return tokens + sum(more * data.count(first) for more, firsts in _DEARER for first in firsts)


def _ascii_tokens(data: bytes) -> float:
    size = len(data)

    def count(which: bytes) -> int:
        return size - len(data.translate(None, which))

    spelled = (
        _LETTER * count(_LETTERS)
        + _WORD * len(data.split())
        + _RARE * (data.count(b"k") + data.count(b"j") + data.count(b"z"))
    )
    english = min(_ENGLISH * data.count(b"th"), _MOST_ENGLISH * spelled)
    return (
        spelled
        - english
        + _CAPITAL * count(_CAPITALS)
        + _DIGIT * count(_DIGITS)
        + _NUMBER * len(data.translate(_DIGITS_ALONE).split())
        + _MARK * count(_PUNCTUATION)
        + _LINE * data.count(b"\n")
    )


def written_tokens(text: str) -> int:
    """Return roughly how many tokens a model took to write a text."""
    return ceil(exact_tokens(text))


def tokens_of(text: str) -> int:
    """Return roughly how many tokens a text has in a prompt, framing included; 0 for none."""
    return written_tokens(text) + PER_MESSAGE if text else 0


def start_of(text: str, *, tokens: int) -> str:
    """Return a beginning of the text that has at most so many tokens, about the longest."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if tokens_of(text[:middle]) <= tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low]
