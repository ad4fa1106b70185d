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
    """The size of a message of the conversation, and whether it is a question."""

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

    Shapes: `sizes` in the order of the conversation, the new message last; a question and its
    answer are kept or cut together, so that the conversation never begins with an answer.
    """
    newest = sizes[-1]
    tokens = newest.tokens
    if tokens > budget_tokens:
        return None
    first = newest.turn_id
    of_exchange = 0
    for index in range(len(sizes) - 2, -1, -1):
        of_exchange += sizes[index].tokens
        if tokens + of_exchange > budget_tokens:
            break
        if sizes[index].asks:
            first, tokens, of_exchange = sizes[index].turn_id, tokens + of_exchange, 0
    return Window(first_turn_id=first, tokens=tokens)
