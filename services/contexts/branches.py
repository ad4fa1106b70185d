"""The branch of a chat that a turn's question ends: what of it is sent, in order.

A chat's newest messages are read in one go and followed from the question to its parents here: a
recursive query would take the database ten times as long for a branch of 2,000 messages.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from services.prompts.window import MESSAGE_TOKENS

# For answers of earlier releases, which were stored without: roughly, in SQL.
_UNKNOWN_WORK: Final = """(
    SELECT sum(octet_length(coalesce(output, '')) / 3 + octet_length(input::text) / 3 + 50)
    FROM tool_calls WHERE tool_calls.turn_id = said.turn_id AND said.status <> 'failed')"""
_UNKNOWN_BRIEF: Final = """(
    SELECT sum(least(octet_length(input::text) / 3, 300) + 80)
    FROM tool_calls WHERE tool_calls.turn_id = said.turn_id AND said.status <> 'failed')"""

SKELETON: Final = f"""
    id, parent_id, turn_id, role = 'user' AND joined_step IS NULL AS asks,
    joined_step IS NOT NULL AS joins, left_out, {MESSAGE_TOKENS} AS tokens,
    CASE WHEN role = 'user' THEN 0 ELSE coalesce(work_tokens, {_UNKNOWN_WORK}, 0) END AS work,
    CASE WHEN role = 'user' THEN 0 ELSE coalesce(brief_tokens, {_UNKNOWN_BRIEF}, 0) END AS brief
"""
"""The columns of `messages AS said` that a branch is followed by."""

COLUMNS: Final = (
    *("id", "parent_id", "turn_id", "asks", "joins", "left_out", "tokens", "work", "brief"),
)
ARRAYS: Final = ", ".join(f"array_agg({name}) AS {name}" for name in COLUMNS)


class BranchMessage(NamedTuple):
    """A message as the skeleton has it: one that asks, that joins what was asked, or an answer.

    Units: as in `MessageSize`.
    """

    id: UUID
    parent_id: UUID | None
    turn_id: UUID
    asks: bool
    joins: bool
    left_out: bool
    tokens: int
    work: int
    brief: int


@dataclass(frozen=True, slots=True)
class FollowedBranch:
    """What is sent of a branch, in order, its question last.

    `before_id` is the message before it that was not looked at, or that a summary ends with, if
    there is any; `others` are messages that were read and aren't sent.
    """

    sent: Sequence[BranchMessage]
    before_id: UUID | None = None
    others: Sequence[BranchMessage] = ()


def messages_from(row: asyncpg.Record) -> list[BranchMessage]:
    """Return the messages of a row with the arrays of the skeleton."""
    columns = (row[name] or () for name in COLUMNS)
    return [*map(BranchMessage._make, zip(*columns, strict=True))]


def follow(
    messages: Sequence[BranchMessage],
    leaf_id: UUID,
    *,
    most_tokens: int,
    summarised: Collection[UUID] = (),
) -> FollowedBranch:
    """Return what is sent of the branch with the leaf, back to a message that ends a summary.

    A question that wasn't answered is not sent, nor an answer that is left out, nor its question: a
    message that the provider refuses must not make it refuse the next ones, too. What another
    message joined is sent with that. Where not all of it is looked at, it begins with a question.
    """
    by_id = {message.id: message for message in messages}
    later = by_id.get(leaf_id)
    if later is None:
        return FollowedBranch((), None, messages)
    sent, is_sent, left = [later], True, most_tokens - later.tokens
    while left >= 0 and later.parent_id is not None and later.parent_id not in summarised:
        said = by_id.get(later.parent_id)
        if said is None:
            break
        is_answer = not (said.asks or said.joins)
        is_sent = not said.left_out and (is_answer or (is_sent and not later.asks))
        if is_sent:
            sent.append(said)
            left -= said.tokens
        later = said
    before_id = later.parent_id
    while len(sent) > 1 and not sent[-1].asks:
        sent.pop()
        before_id = sent[-1].parent_id
    if len(sent) == len(messages):
        return FollowedBranch(sent[::-1], before_id)
    kept = {message.id for message in sent}
    others = [message for message in messages if message.id not in kept]
    return FollowedBranch(sent[::-1], before_id, others)
