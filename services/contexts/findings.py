"""Owns what a turn needs of memories and knowledge, whoever provides it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from schema.actors import Actor
from schema.memories import MemoryHit


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A piece of a document's version. Units: `score` is larger for a better match."""

    document_id: UUID
    version: int
    title: str
    content: str
    score: float


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
