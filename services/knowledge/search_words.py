"""Owns which words of a question passages are looked for by.

A passage with all of them is the best match and often there is none; for one with some of them
the rare words say the most, and cost the least: a common one is in most passages.
"""

import re
from collections.abc import Sequence
from typing import Final

_MOST_TOGETHER: Final = 12
"""A question of more words is a text; no passage holds them all."""
_MOST_APART: Final = 6

_LEFT_OUT: Final = re.compile(r'(?:^|(?<=\s))-+(?:"[^"]*(?:"|$)|\S+)')
_NEXT_TO_EACH_OTHER: Final = re.compile(r" <(?:-|\d+)> ")


def wanted_words(question: str) -> str:
    """Return the question without the words and phrases that a minus leaves out."""
    return _LEFT_OUT.sub(" ", question)


def worth_together(words: Sequence[str]) -> bool:
    """Say whether a passage may hold all the words."""
    return 0 < len(words) <= _MOST_TOGETHER


def without_phrases(query: str) -> str:
    """Return a `tsquery` that its index alone answers, of one that may ask for phrases."""
    return _NEXT_TO_EACH_OTHER.sub(" & ", query)


def any_of(words: Sequence[str]) -> list[str]:
    """Return the `tsquery`s that ask for any of the rarest words, each for one less.

    Where more passages hold any of six than are ranked, the most common word hides the others.

    Shapes: `words` are ordered from rare to common.
    """
    most = min(len(words), _MOST_APART)
    return [" | ".join(map(_quoted, words[:count])) for count in range(most, 0, -1)]


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
