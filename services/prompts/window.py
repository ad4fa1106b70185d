"""The part of a conversation that fits into a turn's prompt, and how much it says of tools.

What was decided for the turn before stays as long as it fits, and what is cut is cut in large
steps: so most turns send the same beginning, which the provider has in its cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

MESSAGE_TOKENS: Final = (
    "coalesce(tokens, (3 * octet_length(content) - length(content) + 7) / 8 + 4)"
)
"""The estimate that is stored with a message; for one of an earlier release a rough one, in SQL."""

_KEPT: Final = 0.7
"""How much of the room a conversation may fill after it was cut."""

_KEPT_WHOLE: Final = 0.5
"""How much of their room the results of tools may fill after older ones were shortened."""


@dataclass(frozen=True, slots=True)
class MessageSize:
    """The size of a message of the conversation, and whether it begins an exchange.

    Units: `work` and `brief` are what an answer's tool calls and results add to it, whole and
    shortened.
    """

    turn_id: UUID
    tokens: int
    asks: bool
    work: int = 0
    brief: int = 0


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
    capped = [_capped(size, result_tokens) for size in sizes]
    whole_from = _whole_from(capped, result_tokens, whole_from)
    tokens = [_tokens(size, whole_from) for size in capped]
    if sum(tokens) <= budget_tokens:
        return Window(sizes[0].turn_id, sum(tokens), whole_from)
    first, kept = _newest_exchanges(capped, tokens, budget_tokens=int(budget_tokens * _KEPT))
    if first == len(sizes) - 1:
        first, kept = _newest_exchanges(capped, tokens, budget_tokens=budget_tokens)
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


def _capped(size: MessageSize, result_tokens: int) -> MessageSize:
    if size.work <= result_tokens:
        return size
    return MessageSize(size.turn_id, size.tokens, size.asks, result_tokens, size.brief)


def _whole_from(
    sizes: Sequence[MessageSize], result_tokens: int, before: UUID | None
) -> UUID | None:
    """Return the turn from which on results stay whole: as before, while there is room for them."""
    whole = [size for size in sizes if size.work and (before is None or size.turn_id >= before)]
    if sum(size.work for size in whole) <= result_tokens:
        return before
    left = result_tokens * _KEPT_WHOLE
    kept = whole.pop()
    left -= kept.work
    while whole and whole[-1].work <= left:
        kept = whole.pop()
        left -= kept.work
    return kept.turn_id


def _tokens(size: MessageSize, whole_from: UUID | None) -> int:
    is_whole = whole_from is None or size.turn_id >= whole_from
    return size.tokens + (size.work if is_whole else size.brief)
