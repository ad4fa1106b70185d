"""Searches memories and knowledge for a turn: in parallel, and never for long.

A turn continues without what is not found in time; nothing here fails it.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeVar

import structlog
from prometheus_client import Counter

from schema.actors import Actor
from schema.knowledge_search import FoundPassage
from schema.memories import MemoryHit, MemoryKind
from services.embeddings import Embedder, Purpose
from services.memories.search import is_relevant

_log = structlog.get_logger(__name__)


class MemorySource(Protocol):
    """Finds memories."""

    async def for_prompt(
        self, actor: Actor, query: str, query_embedding: Sequence[float] | None, *, limit: int
    ) -> Sequence[MemoryHit]:
        """Return the actor's pinned memories, then others, the best first.

        Without a vector, e.g. while the embedder is unavailable, words alone decide.
        """
        ...


class KnowledgeSource(Protocol):
    """Finds passages."""

    async def relevant(
        self, actor: Actor, query: str, query_embedding: Sequence[float] | None, *, limit: int
    ) -> Sequence[FoundPassage]:
        """Return passages of the actor's own and of published documents, the best first.

        Without a vector, e.g. while the embedder is unavailable, words alone decide.
        """
        ...


T = TypeVar("T")

CONTEXT_MISSED: Final = Counter(
    "everturn_context_searches_missed",
    "Parts of a turn's context whose search failed or took too long.",
    ("part", "cause"),
)

_TIMEOUT: Final = timedelta(seconds=1)
_MOST_MEMORIES: Final = 30
_MOST_PASSAGES: Final = 12
# These say how to answer, whatever the message is about.
_ALWAYS: Final = frozenset({MemoryKind.PREFERENCE, MemoryKind.INSTRUCTION})


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found; `missing` names what could not be searched."""

    memories: Sequence[MemoryHit] = ()
    passages: Sequence[FoundPassage] = ()
    missing: tuple[str, ...] = ()


class ContextSearch:
    """Searches the sources that the process was given.

    Units: `timeout` bounds a whole search.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        memories: MemorySource | None = None,
        knowledge: KnowledgeSource | None = None,
        timeout: timedelta = _TIMEOUT,
    ) -> None:
        self._embedder = embedder
        self._memories = memories
        self._knowledge = knowledge
        self._timeout_s = timeout.total_seconds()

    def can_find(self, *, memories: bool, knowledge: bool) -> bool:
        """Whether there is anything to search."""
        return (memories and self._memories is not None) or (
            knowledge and self._knowledge is not None
        )

    async def find(
        self, actor: Actor, question: str, *, memories: bool, knowledge: bool
    ) -> Findings:
        """Return what matches the question, of the kinds that are wanted, searched in parallel."""
        until = asyncio.get_running_loop().time() + self._timeout_s
        # Without a vector, words can still be searched: some of the time is left for that.
        embedded_by = until - self._timeout_s / 5
        vector = await _in_time(self._vector(question), embedded_by, "embedding")
        hits, passages = await asyncio.gather(
            _in_time(
                self._find_memories(actor, question, vector, wanted=memories), until, "memories"
            ),
            _in_time(
                self._find_passages(actor, question, vector, wanted=knowledge), until, "knowledge"
            ),
        )
        found = {"memories": hits, "knowledge": passages}
        missing = tuple(name for name, result in found.items() if result is None)
        return Findings(hits or (), passages or (), missing)

    async def _vector(self, question: str) -> Sequence[float]:
        [vector] = await self._embedder.embed([question], purpose=Purpose.QUERY)
        return vector

    async def _find_memories(
        self, actor: Actor, question: str, vector: Sequence[float] | None, *, wanted: bool
    ) -> Sequence[MemoryHit]:
        if self._memories is None or not wanted:
            return ()
        hits = await self._memories.for_prompt(actor, question, vector, limit=_MOST_MEMORIES)
        return [hit for hit in hits if hit.pinned or hit.kind in _ALWAYS or is_relevant(hit)]

    async def _find_passages(
        self, actor: Actor, question: str, vector: Sequence[float] | None, *, wanted: bool
    ) -> Sequence[FoundPassage]:
        if self._knowledge is None or not wanted:
            return ()
        return await self._knowledge.relevant(actor, question, vector, limit=_MOST_PASSAGES)


async def _in_time(work: Awaitable[T], until: float, what: str) -> T | None:
    """Return the result of the work, or None if it fails or takes too long."""
    try:
        async with asyncio.timeout_at(until):
            return await work
    except Exception as error:  # noqa: BLE001 -- whatever is broken, the turn can do without
        _log.warning("context_degraded", layer=what, error=type(error).__name__)
        cause = "timeout" if isinstance(error, TimeoutError) else "failure"
        CONTEXT_MISSED.labels(part=what, cause=cause).inc()
        return None
