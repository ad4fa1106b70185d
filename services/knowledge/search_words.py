"""Owns which words of a question passages are looked for by.

A passage with all of them is the best match and often there is none; for one with some of them
the rare words say the most, and cost the least: a common one is in most passages.
"""

import re
from collections.abc import Mapping
from typing import Final

_MOST_TOGETHER: Final = 12
"""A question of more words is a text; no passage holds them all."""
_MOST_APART: Final = 6
_MOST_EXPECTED: Final = 1_000
"""Units: passages. So many may hold any of the rarest words, as far as is known."""

_LEFT_OUT: Final = re.compile(r'(?:^|(?<=\s))-+(?:"[^"]*(?:"|$)|\S+)')
_NEXT_TO_EACH_OTHER: Final = re.compile(r" <(?:-|\d+)> ")


def wanted_words(question: str) -> str:
    """Return the question without the words and phrases that a minus leaves out."""
    return _LEFT_OUT.sub(" ", question)


def worth_together(words: Mapping[str, float]) -> bool:
    """Say whether a passage may hold all the words; `words` is as for `rarest`."""
    return 0 < len(words) <= _MOST_TOGETHER


def without_phrases(query: str) -> str:
    """Return a `tsquery` that its index alone answers, of one that may ask for phrases."""
    return _NEXT_TO_EACH_OTHER.sub(" & ", query)


def rarest(words: Mapping[str, float]) -> str:
    """Return the `tsquery` that asks for any of the rarest words.

    `words` says of each how many passages are known to hold it, 0 where that is not known: such
    are rare, and a long one more than a short one.
    """
    chosen: list[str] = []
    expected = 0.0
    for word, count in sorted(words.items(), key=lambda one: (one[1], -len(one[0]), one[0])):
        expected += count
        if chosen and (expected > _MOST_EXPECTED or len(chosen) == _MOST_APART):
            break
        chosen.append(word)
    return " | ".join(map(_quoted, chosen))


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
