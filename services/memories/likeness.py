"""Owns when two memories say the same: by their words, or by their vectors."""

from typing import Final

from sqlalchemy import Float, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.ids import MemoryId
from schema.memories import MemoryStatus
from schema.tables import MemoryRow

_SAME_SCORE: Final = 0.92
"""The cosine similarity from which on two memories count as saying the same."""

_AROUND: Final = " \t\r\n.!"


async def alike(
    session: AsyncSession, row: MemoryRow, *, embedder: str, status: MemoryStatus | None = None
) -> MemoryId | None:
    """Return a memory of the user's that says what a new one would, of any status if None.

    Those without a vector of this embedder can only be told by their words.
    """
    same_words = await _with_same_words(session, row, status)
    if same_words is not None or row.embedding is None:
        return same_words
    return await _with_same_meaning(session, row, embedder, status)


async def _with_same_words(
    session: AsyncSession, row: MemoryRow, status: MemoryStatus | None
) -> MemoryId | None:
    """Return a memory that differs by case, or by what stands around it, at most."""
    words = func.lower(func.btrim(col(MemoryRow.content), _AROUND))
    query = select(MemoryRow.id).where(
        col(MemoryRow.user_id) == row.user_id,
        words == func.lower(func.btrim(row.content, _AROUND)),
    )
    if status is not None:
        query = query.where(col(MemoryRow.status) == status.value)
    found = (await session.exec(query.limit(1))).first()
    return None if found is None else MemoryId(found)


async def _with_same_meaning(
    session: AsyncSession, row: MemoryRow, embedder: str, status: MemoryStatus | None
) -> MemoryId | None:
    """Return the memory that is nearest, if it is near enough."""
    distance = col(MemoryRow.embedding).op("<=>", return_type=Float())(row.embedding)
    query = select(MemoryRow.id).where(
        col(MemoryRow.user_id) == row.user_id,
        col(MemoryRow.embedder) == embedder,
        distance <= 1 - _SAME_SCORE,
    )
    if status is not None:
        query = query.where(col(MemoryRow.status) == status.value)
    ordered = query.order_by(distance, col(MemoryRow.id).desc()).limit(1)
    found = (await session.exec(ordered)).first()
    return None if found is None else MemoryId(found)
