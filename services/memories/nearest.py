"""Owns the search by vector: exact, among the memories of one user and of one embedder.

There is no approximate index on purpose: it would look for neighbours among everybody's rows
first and filter afterwards, so that a user with few of many could get none.
"""

from collections.abc import Sequence

from sqlalchemy import Float
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.ids import UserId
from schema.memories import MemoryHit, MemoryStatus
from schema.tables import MemoryRow
from services.memories.rows import WITHOUT_VECTOR, hit_from_row


async def nearest(
    session: AsyncSession,
    user_id: UserId,
    vector: Sequence[float],
    *,
    embedder: str,
    limit: int,
    status: MemoryStatus | None = MemoryStatus.ACCEPTED,
) -> list[MemoryHit]:
    """Return the user's memories nearest to `vector`, closest first; of any status if None.

    Only what `embedder` has made is compared: vectors of two models say nothing of each other.
    Shapes: `vector` has as many numbers as those that `embedder` makes.
    """
    distance = col(MemoryRow.embedding).op("<=>", return_type=Float())(vector)
    query = select(MemoryRow, distance).where(
        col(MemoryRow.user_id) == user_id, col(MemoryRow.embedder) == embedder
    )
    if status is not None:
        query = query.where(col(MemoryRow.status) == status.value)
    ordered = query.order_by(distance, col(MemoryRow.id).desc()).limit(limit)
    rows = await session.exec(ordered.options(WITHOUT_VECTOR))
    return [hit_from_row(row, score=1.0 - apart) for row, apart in rows.all()]
