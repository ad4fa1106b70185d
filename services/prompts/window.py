"""Estimates tokens, and picks the part of a conversation that fits into the prompt.

Four ASCII characters are about a token; a character of another script takes more of one the more
bytes it has in UTF-8: half a token in Cyrillic, a whole one in Chinese, two for most emoji.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final
from uuid import UUID

CHARS_PER_TOKEN: Final = 4
_PER_MESSAGE: Final = 4

MESSAGE_TOKENS: Final = f"(3 * octet_length(content) - length(content) + 7) / 8 + {_PER_MESSAGE}"
"""`tokens_of` for the column `content`, in SQL: it need not be read to be measured."""


def exact_tokens(text: str) -> float:
    """Return the estimate of a part of a text, for sums that are rounded once."""
    return (3 * len(text.encode("utf-8", "surrogatepass")) - len(text)) / 8


def written_tokens(text: str) -> int:
    """Return roughly how many tokens a model took to write a text."""
    return ceil(exact_tokens(text))


def tokens_of(text: str) -> int:
    """Return roughly how many tokens a text has in a prompt, framing included; 0 for none."""
    return written_tokens(text) + _PER_MESSAGE if text else 0


def start_of(text: str, *, tokens: int) -> str:
    """Return the longest beginning of a text that has at most so many tokens."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if tokens_of(text[:middle]) <= tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low]


@dataclass(frozen=True, slots=True)
class MessageSize:
    """The size of a message of the conversation."""

    turn_id: UUID
    tokens: int


@dataclass(frozen=True, slots=True)
class Window:
    """The newest part of a conversation that fits: everything from `first_turn_id` on."""

    first_turn_id: UUID
    tokens: int


def fit(sizes: Sequence[MessageSize], *, budget_tokens: int) -> Window | None:
    """Return the newest turns that fit, or None if the last message alone doesn't.

    Shapes: `sizes` in the order of the conversation, the new message last; whole turns are kept
    or cut, so that the conversation never begins with an answer.
    """
    newest = sizes[-1]
    tokens = newest.tokens
    if tokens > budget_tokens:
        return None
    first = newest.turn_id
    of_turn = 0
    for index in range(len(sizes) - 2, -1, -1):
        of_turn += sizes[index].tokens
        if tokens + of_turn > budget_tokens:
            break
        if index == 0 or sizes[index - 1].turn_id != sizes[index].turn_id:
            first, tokens, of_turn = sizes[index].turn_id, tokens + of_turn, 0
    return Window(first_turn_id=first, tokens=tokens)
