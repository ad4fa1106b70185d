"""Owns the search by vector: exact, among the memories of one user and of one embedder.

There is no approximate index on purpose: it would look for neighbours among everybody's rows
first and filter afterwards, so that a user with few of many could get none.
"""

from collections.abc import Sequence
from typing import Final

from schema.ids import UserId
from schema.memories import MemoryHit
from services.database import Connection
from services.database.queries import AttributeRow
from services.memories.rows import hit_from_row

# A vector is read by a subquery once; without it each row would have it read again.
_NEAREST: Final = """
SELECT *, 1 - distance AS score
FROM (
    SELECT id, kind, content, importance, status, source_turn_id, version, created_at, updated_at,
           embedding <=> (SELECT $2::real[]::vector) AS distance
    FROM memories
    WHERE user_id = $1 AND embedder = $3 AND status = 'accepted'
) AS near
ORDER BY distance, id DESC LIMIT $4
"""


async def nearest(
    connection: Connection,
    user_id: UserId,
    vector: Sequence[float],
    *,
    embedder: str,
    limit: int,
) -> list[MemoryHit]:
    """Return the accepted memories of the user that are nearest to `vector`, closest first.

    Only what `embedder` has made is compared: vectors of two models say nothing of each other.
    Shapes: `vector` has as many numbers as those that `embedder` makes.
    """
    rows = await connection.fetch(
        _NEAREST, user_id, vector, embedder, limit, record_class=AttributeRow
    )
    return [hit_from_row(row) for row in rows]
