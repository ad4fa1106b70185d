"""Owns finding memories by meaning: for their owner, and for the prompt of a turn."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from schema.actors import Actor
from schema.memories import MemoryHit, SearchMemoriesRequest
from services.database import Database
from services.embeddings import Embedder, Purpose
from services.embeddings.vectors import PATIENCE, vector_of
from services.memories.nearest import nearest

LEAST_SCORE: Final = 0.1
"""The cosine similarity from which on a memory may have to do with what is looked for.

The embedded model scores what a text is about from 0.15 on, and what it is not below 0.1.
"""


class MemorySearch:
    """Searches what the actor has accepted. Errors: DatabaseUnavailableError.

    Units: `patience` bounds the wait for the vector of a query.
    """

    def __init__(
        self, database: Database, embedder: Embedder, *, patience: timedelta = PATIENCE
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._patience = patience

    async def search(self, actor: Actor, request: SearchMemoriesRequest) -> list[MemoryHit]:
        """Return the memories that are nearest to a query, closest first.

        Errors: EmbeddingError.
        """
        query = await vector_of(
            self._embedder, request.query, purpose=Purpose.QUERY, patience=self._patience
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
