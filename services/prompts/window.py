"""Estimates tokens, and picks the part of a conversation that fits into the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

CHARS_PER_TOKEN: Final = 4
_PER_MESSAGE: Final = 4


def estimated_tokens(chars: int) -> int:
    """Return roughly how many tokens a text of `chars` characters has, framing included."""
    return -(-chars // CHARS_PER_TOKEN) + _PER_MESSAGE


def tokens_of(text: str) -> int:
    """Return roughly how many tokens a text has; 0 if it is empty."""
    return estimated_tokens(len(text)) if text else 0


def estimated_output(text_chars: int) -> int:
    """Return roughly how many tokens a model wrote for a text of this many characters."""
    return -(-text_chars // CHARS_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class MessageSize:
    """The size of a message of the conversation."""

    turn_id: UUID
    chars: int


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
    tokens = estimated_tokens(newest.chars)
    if tokens > budget_tokens:
        return None
    first = newest.turn_id
    of_turn = 0
    for index in range(len(sizes) - 2, -1, -1):
        of_turn += estimated_tokens(sizes[index].chars)
        if tokens + of_turn > budget_tokens:
            break
        if index == 0 or sizes[index - 1].turn_id != sizes[index].turn_id:
            first, tokens, of_turn = sizes[index].turn_id, tokens + of_turn, 0
    return Window(first_turn_id=first, tokens=tokens)
