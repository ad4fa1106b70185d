"""Owns the search of knowledge: by meaning and by words, the two rankings made one.

What somebody finds: whatever is published, theirs and others'; and of their own documents with
nothing published, the latest version that is ready. So a document is never found twice in
different words. Vectors of another embedder than the one in use are not compared, ever.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from schema.actors import Actor
from schema.knowledge_search import FoundPassage, KnowledgeHit, SearchKnowledgeRequest
from services.database import Database
from services.database.queries import acting_query
from services.embeddings import Embedder, EmbeddingError, Purpose
from services.embeddings.vectors import vector_of
from services.knowledge.search_statement import search_statement
from services.knowledge.search_words import wanted_words

KNOWLEDGE_WITHOUT_VECTORS: Final = Counter(
    "everturn_knowledge_searches_without_vectors",
    "Knowledge searches by words alone, because the query could not be embedded.",
)

_log = structlog.get_logger(__name__)

_PATIENCE: Final = timedelta(seconds=2)
"""Words alone answer too, so that a request does not wait for vectors as long as others do."""
LONGEST_QUERY: Final = 2_000
_ENOUGH_BESIDE_VECTORS: Final = 1
"""Passages with all the words after which none with some of them are looked for: what is near in
meaning fills the rest, and a common word alone costs as much as everything else."""
_LEAST_SIMILARITY: Final = 0.2
"""What is nearest may still be about something else. Of the embedded model, questions about
something else reach 0.13 and chance 0.18; most of those about a passage start at 0.21."""
_LEAST_SIMILARITY_IN_A_PROMPT: Final = 0.25
"""Who searches looks at what is found and judges; a prompt's reader did not ask for it."""


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
        self._search = acting_query(search_statement(embedder.dimensions), parameters=8)

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
        enough = limit if vector is None else _ENOUGH_BESIDE_VECTORS
        words = (query, wanted_words(query), actor.user_id)
        given = (*words, vector, self._embedder.name, enough, least, limit)
        rows = await self._database.fetch(actor, self._search, *given)
        return [KnowledgeHit(**row) for row in rows]
