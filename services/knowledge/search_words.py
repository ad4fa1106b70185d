"""Owns which words of a question passages are looked for by."""

import re
from typing import Final

_LEFT_OUT: Final = re.compile(r'(?:^|(?<=\s))-+(?:"[^"]*(?:"|$)|\S+)')


def wanted_words(question: str) -> str:
    """Return the question without the words and phrases that a minus leaves out."""
    return _LEFT_OUT.sub(" ", question)
