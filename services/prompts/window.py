"""Owns which part of a conversation still fits into the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.prompts.tokens import estimated_tokens


@dataclass(frozen=True, slots=True)
class MessageSize:
    """How long a message of the conversation is."""

    turn_id: UUID
    chars: int


@dataclass(frozen=True, slots=True)
class Window:
    """The newest part of a conversation that fits: everything from `first_turn_id` on."""

    first_turn_id: UUID
    tokens: int


def fit(sizes: Sequence[MessageSize], *, budget_tokens: int) -> Window | None:
    """Return the newest turns that fit, or None where the last message alone does not.

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
