"""Works that are due after turns: they wait in a table, from the end of their turn until done."""

from typing import Final

import asyncpg

from schema.names import Work

# Of the user whose turn it is. Where they don't want to be learnt from, no memory is due.
STORE_DUE: Final = """
    INSERT INTO due_works (work, user_id, turn_id)
    SELECT work, user_id, id FROM turns CROSS JOIN unnest({works}) AS work
    WHERE id = {turn_id} AND NOT (work = 'extract_memories' AND EXISTS (
        SELECT FROM preferences WHERE preferences.user_id = turns.user_id
        AND NOT (extract_memories AND use_memories)))
"""
"""Stores works of a turn, as its user; a part of the statement that ends it."""


def works_due(
    turn: asyncpg.Record, works: frozenset[Work], *, is_untitled: bool
) -> tuple[Work, ...]:
    """Return which works are due after a turn that is completed, by its row and its chat's."""
    is_due = {
        Work.EXTRACT_MEMORIES: True,
        Work.TITLE_CHAT: is_untitled,
        Work.COMPACT_CHAT: "historyTokens" in (turn["prompt"] or {}),
    }
    return tuple(work for work in Work if is_due[work] and work in works)
