"""Owns what a turn needs of memories and knowledge, whoever provides it."""

from collections.abc import Sequence
from typing import Protocol

from schema.actors import Actor
from schema.knowledge_search import FoundPassage
from schema.memories import MemoryHit


class MemorySource(Protocol):
    """Finds memories."""

    async def relevant(
        self, actor: Actor, query_embedding: Sequence[float], *, limit: int, min_score: float
    ) -> Sequence[MemoryHit]:
        """Return the actor's accepted memories that are near to the query, the best first."""
        ...


class KnowledgeSource(Protocol):
    """Finds passages."""

    async def relevant(
        self, actor: Actor, query: str, query_embedding: Sequence[float] | None, *, limit: int
    ) -> Sequence[FoundPassage]:
        """Return passages of the actor's own and of published documents, the best first.

        Without a vector, as while the embedder is away, the words alone decide.
        """
        ...
