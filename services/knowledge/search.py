"""Owns the search of knowledge: by meaning and by words, the two rankings made one.

What somebody finds: whatever is published, theirs and others'; and of their own documents with
nothing published, the latest version that is ready. So a document is never found twice in
different words. Vectors of another embedder than the one in use are not compared, ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from schema.actors import Actor
from schema.knowledge_search import KnowledgeHit, SearchKnowledgeRequest
from services.contexts.findings import FoundPassage
from services.database import Connection, Database
from services.degradations import KNOWLEDGE_WITHOUT_VECTORS
from services.embeddings import Embedder, EmbeddingError, Purpose
from services.embeddings.vectors import vector_of
from services.knowledge.fusion import fused
from services.knowledge.search_statements import (
    NEAREST_DRAFTS,
    NEAREST_EXACTLY,
    PASSAGES,
    QUESTION,
    RARE_FIRST,
    WITH_WORDS,
    nearest,
)
from services.knowledge.search_words import any_of, wanted_words, without_phrases, worth_together

_log = structlog.get_logger(__name__)

_PATIENCE: Final = timedelta(seconds=2)
"""Words alone answer too, so that a request does not wait for vectors as long as others do."""
LONGEST_QUERY: Final = 2_000
_CANDIDATES: Final = 50
"""How far down each ranking goes."""
_MOST_RANKED: Final = 200
"""Passages whose words are compared: with more, common words cost more than all the rest."""
_ENOUGH_BESIDE_VECTORS: Final = 1
"""Passages with all the words after which none with some of them are looked for: what is near in
meaning fills the rest, and a common word alone costs as much as everything else."""
_LEAST_SIMILARITY: Final = 0.2
"""What is nearest may still be about something else. Of the embedded model, questions about
something else reach 0.13 and chance 0.18; most of those about a passage start at 0.21."""
_LEAST_SIMILARITY_IN_A_PROMPT: Final = 0.25
"""Who searches looks at what is found and judges; a prompt's reader did not ask for it."""


@dataclass(frozen=True, slots=True)
class _Drafts:
    """The versions of the actor's own that only they find."""

    ids: list[UUID]
    numbers: list[int]


@dataclass(frozen=True, slots=True)
class _Matches:
    """The best of what holds some words, and whether no passage with them went unranked."""

    ids: list[UUID]
    are_all: bool


class KnowledgeSearch:
    """Searches passages. Errors: every method raises DatabaseUnavailableError.

    Units: `patience` bounds the wait for the vector of a query.
    """

    def __init__(
        self, database: Database, embedder: Embedder, *, patience: timedelta = _PATIENCE
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._patience = patience
        self._nearest = nearest(embedder.dimensions)

    async def search(self, actor: Actor, request: SearchKnowledgeRequest) -> list[KnowledgeHit]:
        """Return the passages that match best; while the embedder is away, those by words."""
        vector = await self._vector_of(request.query)
        return await self._find(
            actor, request.query, vector, limit=request.limit, least=_LEAST_SIMILARITY
        )

    async def relevant(
        self, actor: Actor, query: str, query_embedding: Sequence[float] | None, *, limit: int
    ) -> list[FoundPassage]:
        """Return the passages that match a query best whose vector is known, if it has any.

        What is found by meaning alone has to be nearer than for `search`.

        Shapes: `query_embedding` is a vector of the embedder in use, L2-normalised.
        """
        hits = await self._find(
            actor,
            query[:LONGEST_QUERY],
            query_embedding,
            limit=limit,
            least=_LEAST_SIMILARITY_IN_A_PROMPT,
        )
        return [
            FoundPassage(
                document_id=hit.document_id,
                version=hit.version,
                title=hit.title,
                content=hit.content,
                score=hit.score,
            )
            for hit in hits
        ]

    async def _vector_of(self, query: str) -> list[float] | None:
        try:
            return await vector_of(
                self._embedder, query, purpose=Purpose.QUERY, patience=self._patience
            )
        except EmbeddingError as error:
            _log.warning("knowledge_search_by_words_only", cause=type(error).__name__)
            KNOWLEDGE_WITHOUT_VECTORS.inc()
            return None

    async def _find(
        self,
        actor: Actor,
        query: str,
        vector: Sequence[float] | None,
        *,
        limit: int,
        least: float,
    ) -> list[KnowledgeHit]:
        # One snapshot: in between, a document may get or lose the version that is found of it.
        async with self._database.statements(actor, snapshot=True) as connection:
            [question] = await connection.fetch(QUESTION, query, wanted_words(query), actor.user_id)
            drafts = _Drafts(question["draft_ids"], question["draft_numbers"])
            enough = limit if vector is None else _ENOUGH_BESIDE_VECTORS
            rankings = [await _with_words(connection, question, drafts, enough=enough)]
            if vector is not None:
                rankings.append(await self._near(connection, vector, drafts, least=least))
            best = fused(rankings)[:limit]
            return await _read(connection, actor, best)

    async def _near(
        self, connection: Connection, vector: Sequence[float], drafts: _Drafts, *, least: float
    ) -> list[UUID]:
        """Return what is nearest to a vector, by the index and, where that gives up, exactly.

        Units: `least` is the cosine below which something is not near.
        """
        query = (f"[{','.join(map(str, vector))}]", self._embedder.name)
        found = await connection.fetch(self._nearest, *query, _CANDIDATES)
        if len(found) < _CANDIDATES:
            found = await connection.fetch(NEAREST_EXACTLY, *query, _CANDIDATES)
        if drafts.ids:
            found += await connection.fetch(
                NEAREST_DRAFTS, *query, drafts.ids, drafts.numbers, _CANDIDATES
            )
        found.sort(key=lambda row: (row["distance"], row["id"]))
        return [row["id"] for row in found[:_CANDIDATES] if 1 - row["distance"] >= least]


async def _with_words(
    connection: Connection, question: asyncpg.Record, drafts: _Drafts, *, enough: int
) -> list[UUID]:
    """Return what holds the question's words: all of them, then the rarest where that is little."""
    words = question["words"]
    found: list[UUID] = []
    if question["is_indexable"] and worth_together(words):
        query = question["query"]
        together = await _matching(connection, without_phrases(query), query, drafts)
        found = together.ids
    if len(found) < enough and words:
        found += await _with_any(connection, question, drafts)
    return list(dict.fromkeys(found))[:_CANDIDATES]


async def _with_any(
    connection: Connection, question: asyncpg.Record, drafts: _Drafts
) -> list[UUID]:
    """Return what holds any of the rarest words; where that is much, the rarer ones first.

    In a small library all that holds any of them can be ranked, mostly. In a large one the rarest
    word alone is often in too much, and each try costs as much as the one that counts.
    """
    words = await connection.fetchval(RARE_FIRST, question["words"], drafts.ids, drafts.numbers)
    queries = any_of(words)
    if not question["is_large"]:
        some = await _matching(connection, queries[0], None, drafts)
        if some.are_all:
            return some.ids
    found: list[UUID] = []
    for query in reversed(queries):
        some = await _matching(connection, query, None, drafts)
        if not some.are_all:
            return found + some.ids
        found = some.ids
    return found


async def _matching(
    connection: Connection, query: str, exactly: str | None, drafts: _Drafts
) -> _Matches:
    rows = await connection.fetch(
        WITH_WORDS, query, exactly, drafts.ids, drafts.numbers, _MOST_RANKED, _CANDIDATES
    )
    ids = [row["passage_id"] for row in rows]
    return _Matches(ids, are_all=not rows or rows[0]["matches"] < _MOST_RANKED)


async def _read(
    connection: Connection, actor: Actor, best: Sequence[tuple[UUID, float]]
) -> list[KnowledgeHit]:
    """Return the passages in their order; what has gone meanwhile is left out."""
    if not best:
        return []
    rows = await connection.fetch(PASSAGES, [passage_id for passage_id, _ in best], actor.user_id)
    passages = {row["passage_id"]: dict(row) for row in rows}
    return [
        KnowledgeHit(**passages[passage_id], score=score)
        for passage_id, score in best
        if passage_id in passages
    ]
