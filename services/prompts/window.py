"""The part of a conversation that fits into a turn's prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

MESSAGE_TOKENS: Final = (
    "coalesce(tokens, (3 * octet_length(content) - length(content) + 7) / 8 + 4)"
)
"""The estimate that is stored with a message; for one of an earlier release a rough one, in SQL."""


@dataclass(frozen=True, slots=True)
class MessageSize:
    """The size of a message of the conversation, and whether it begins an exchange."""

    turn_id: UUID
    tokens: int
    asks: bool


@dataclass(frozen=True, slots=True)
class Window:
    """The newest part of a conversation that fits: everything from `first_turn_id` on."""

    first_turn_id: UUID
    tokens: int


def fit(sizes: Sequence[MessageSize], *, budget_tokens: int) -> Window | None:
    """Return the newest questions that fit with their answers, or None if the last one doesn't.

    Shapes: `sizes` in the order of the conversation, the new message last; a question, what joined
    it and its answer are kept or cut together, so that the conversation begins with a question.
    """
    if sizes[-1].tokens > budget_tokens:
        return None
    window = Window(first_turn_id=sizes[-1].turn_id, tokens=sizes[-1].tokens)
    tokens = 0
    for size in reversed(sizes):
        tokens += size.tokens
        if tokens > budget_tokens:
            break
        if size.asks:
            window = Window(first_turn_id=size.turn_id, tokens=tokens)
    return window
