"""Finds memories by meaning: exactly, among the memories of one user and of one embedder.

There is no approximate index on purpose: it would look for neighbours among all users' rows first
and filter afterwards, so a user with few of many rows could get none.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from schema.actors import Actor
from schema.ids import UserId
from schema.memories import MemoryHit, SearchMemoriesRequest
from services.database import Connection, Database
from services.database.queries import AttributeRow
from services.embeddings import Embedder, Purpose
from services.embeddings.embedder import VECTOR_TIMEOUT, vector_of
from services.memories.rows import hit_from_row

# A vector is read by a subquery once; without it each row would have it read again.
_NEAREST: Final = """
SELECT *, 1 - distance AS score
FROM (
    SELECT id, kind, content, importance, status, source_turn_id, passage, replaces_id,
           replaced_by_id, version, created_at, updated_at,
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

    Only vectors of `embedder` are compared: those of two models are not comparable.
    Shapes: `vector` has the dimensions of `embedder`.
    """
    rows = await connection.fetch(
        _NEAREST, user_id, vector, embedder, limit, record_class=AttributeRow
    )
    return [hit_from_row(row) for row in rows]


LEAST_SCORE: Final = 0.1
"""The least cosine similarity of a memory that may be relevant.

The embedded model scores related texts 0.15 or more, and unrelated ones below 0.1.
"""


class MemorySearch:
    """Searches the accepted memories of the actor. Errors: DatabaseUnavailableError.

    Units: `vector_timeout` bounds the wait for the vector of a query.
    """

    def __init__(
        self, database: Database, embedder: Embedder, *, vector_timeout: timedelta = VECTOR_TIMEOUT
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._vector_timeout = vector_timeout

    async def search(self, actor: Actor, request: SearchMemoriesRequest) -> list[MemoryHit]:
        """Return the memories that are nearest to a query, closest first.

        Errors: EmbeddingError.
        """
        query = await vector_of(
            self._embedder, request.query, purpose=Purpose.QUERY, within=self._vector_timeout
        )
        return await self._nearest(actor, query, limit=request.limit)

    async def relevant(
        self, actor: Actor, query_embedding: Sequence[float], *, limit: int, min_score: float
    ) -> list[MemoryHit]:
        """Return the memories that are near enough to an embedded query, closest first.

        Shapes: `query_embedding` is a vector of the current embedder, L2-normalised.
        Units: `min_score` is cosine similarity in [-1, 1].
        """
        hits = await self._nearest(actor, query_embedding, limit=limit)
        return [hit for hit in hits if hit.score >= min_score]

    async def _nearest(
        self, actor: Actor, query: Sequence[float], *, limit: int
    ) -> list[MemoryHit]:
        async with self._database.statements(actor) as connection:
            return await nearest(
                connection, actor.user_id, query, embedder=self._embedder.name, limit=limit
            )
