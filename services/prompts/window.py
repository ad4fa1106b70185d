"""The part of a conversation that fits into a turn's prompt, and how much it says of tools.

What was decided for the turn before stays as long as it fits, and what is cut is cut in large
steps: so most turns send the same beginning, which the provider has in its cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

MESSAGE_TOKENS: Final = (
    "coalesce(tokens, (3 * octet_length(content) - length(content) + 7) / 8 + 4)"
)
"""The estimate that is stored with a message; for one of an earlier release a rough one, in SQL."""

_KEPT: Final = 0.7
"""How much of the room a conversation may fill after it was cut."""

_KEPT_WHOLE: Final = 0.5
"""How much of their room the results of tools may fill after older ones were shortened."""


class MessageSize(Protocol):
    """A message of the conversation with its size. Units: tokens."""

    @property
    def turn_id(self) -> UUID:
        """Its turn."""

    @property
    def tokens(self) -> int:
        """The estimate of its text and files."""

    @property
    def asks(self) -> bool:
        """Whether it begins an exchange."""

    @property
    def work(self) -> int:
        """What an answer's tool calls and results add to it."""

    @property
    def brief(self) -> int:
        """What they add to it when they are shortened."""


@dataclass(frozen=True, slots=True)
class Window:
    """The newest part of a conversation that fits: everything from `first_turn_id` on.

    Tool results are whole from `whole_from` on, and shortened before; None shortens none.
    """

    first_turn_id: UUID
    tokens: int
    whole_from: UUID | None = None


def fit(
    sizes: Sequence[MessageSize],
    *,
    budget_tokens: int,
    result_tokens: int = 0,
    whole_from: UUID | None = None,
) -> Window | None:
    """Return the newest questions that fit with their answers, or None if the last one doesn't.

    A conversation that has outgrown its budget is cut to a part of that, and so are the results of
    tools, which one turn can't outgrow: `result_tokens` is also the most of one.

    Shapes: `sizes` in the order of the conversation, the new message last; a question, what joined
    it and its answer are kept or cut together, so that the conversation begins with a question.
    """
    newest = sizes[-1].tokens
    if newest > budget_tokens:
        return None
    work = [min(size.work, result_tokens) for size in sizes]
    whole_from = _whole_from(sizes, work, result_tokens, whole_from)
    tokens = [
        size.tokens + (whole if whole_from is None or size.turn_id >= whole_from else size.brief)
        for size, whole in zip(sizes, work, strict=True)
    ]
    if sum(tokens) <= budget_tokens:
        return Window(sizes[0].turn_id, sum(tokens), whole_from)
    first, kept = _newest_exchanges(sizes, tokens, budget_tokens=int(budget_tokens * _KEPT))
    if first == len(sizes) - 1:
        first, kept = _newest_exchanges(sizes, tokens, budget_tokens=budget_tokens)
    return Window(sizes[first].turn_id, kept, whole_from)


def _newest_exchanges(
    sizes: Sequence[MessageSize], tokens: Sequence[int], *, budget_tokens: int
) -> tuple[int, int]:
    """Return where the newest exchanges begin that fit beside the new message, and their tokens."""
    first, kept, of_exchange = len(sizes) - 1, tokens[-1], 0
    for index in range(len(sizes) - 2, -1, -1):
        of_exchange += tokens[index]
        if kept + of_exchange > budget_tokens:
            break
        if sizes[index].asks:
            first, kept, of_exchange = index, kept + of_exchange, 0
    return first, kept


def _whole_from(
    sizes: Sequence[MessageSize], work: Sequence[int], result_tokens: int, before: UUID | None
) -> UUID | None:
    """Return the turn from which on results stay whole: as before, while there is room for them."""
    whole = [
        (size.turn_id, tokens)
        for size, tokens in zip(sizes, work, strict=True)
        if tokens and (before is None or size.turn_id >= before)
    ]
    if sum(tokens for _, tokens in whole) <= result_tokens:
        return before
    kept, tokens = whole.pop()
    left = result_tokens * _KEPT_WHOLE - tokens
    while whole and whole[-1][1] <= left:
        kept, tokens = whole.pop()
        left -= tokens
    return kept
