"""The search of knowledge: by meaning and by words, both rankings fused by one statement.

Users find whatever is published, theirs and others'; and of their own documents with nothing
published, the latest version that is ready. So a document is never found twice in different words.
Vectors of another embedder than the one in use are never compared.

Words are folded as those of passages are, by `everturn_folded`: full-width and half-width letters,
ligatures and other compatibility characters are what they stand for, invisible ones are left out.

Row-level security decides what is seen. Full text is the exception, see `everturn_passages_with`
in the migration of knowledge: it gives ids, which are then read under row-level security.

Source of the fusion: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet
and individual rank learning methods", SIGIR 2009.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from prometheus_client import Counter

from schema.actors import Actor
from schema.knowledge_search import FoundPassage, KnowledgeHit, SearchKnowledgeRequest
from services.database import Database
from services.database.queries import acting_query
from services.embeddings import Embedder, Purpose
from services.embeddings.embedder import SEARCH_VECTOR_TIMEOUT, vector_or_none

_LEFT_OUT: Final = re.compile(r'(?:^|(?<=\s))-+(?:"[^"]*(?:"|$)|\S+)')


def wanted_words(question: str) -> str:
    """Return the question without the words and phrases that a minus leaves out."""
    return _LEFT_OUT.sub(" ", question)


_CANDIDATES: Final = 50
"""The length of each ranking."""
_K: Final = 60
"""The smoothing constant of the fusion, from the paper."""
_MOST_RANKED: Final = 200
"""Passages whose words are compared: with more, common words cost more than all the rest."""
_MOST_TOGETHER: Final = 12
"""A question of more words is a text; no passage holds them all."""
_MOST_DRAFTS: Final = 10_000
"""The maximum number of drafts' passages: they are searched exactly."""
_LONGEST_VECTOR: Final = 2_000
"""Beyond it, pgvector indexes numbers of half the precision."""

_QUESTION: Final = """
    SELECT websearch_to_tsquery('english', everturn_folded($1)) AS query,
           tsvector_to_array(to_tsvector('english', everturn_folded($2))) AS words
"""
# Of a document with nothing published its owner finds the latest version that is ready; where
# those are too many, the newest documents come first.
_DRAFTS: Final = f"""
    SELECT coalesce(array_agg(id), '{{}}') AS ids, coalesce(array_agg(number), '{{}}') AS numbers
    FROM (
        SELECT documents.id, latest.number,
               sum(latest.passage_count) OVER (ORDER BY documents.id DESC) AS passages
        FROM documents CROSS JOIN LATERAL (
            SELECT number, passage_count FROM document_versions
            WHERE document_id = documents.id AND status = 'ready' ORDER BY number DESC LIMIT 1
        ) AS latest
        WHERE documents.user_id = $3 AND documents.published_version IS NULL
    ) AS versions
    WHERE passages <= {_MOST_DRAFTS}
"""  # noqa: S608 -- a number

# The index is asked for single words; whether they stand next to each other is seen afterwards.
_TOGETHER: Final = rf"""
    SELECT CASE WHEN coalesce(querytree(query), '') NOT IN ('', 'T')
                     AND cardinality(words) BETWEEN 1 AND {_MOST_TOGETHER}
        THEN ARRAY(
            SELECT passage_id
            FROM everturn_passages_with(
                regexp_replace(query::text, ' <(-|\d+)> ', ' & ', 'g')::tsquery, query,
                drafts.ids, drafts.numbers, {_MOST_RANKED}
            )
            ORDER BY rank DESC, passage_id LIMIT {_CANDIDATES}
        )
        ELSE '{{}}' END AS ids
    FROM question CROSS JOIN drafts
"""  # noqa: S608 -- numbers
_BY_WORDS: Final = f"""
    SELECT id, row_number() OVER (ORDER BY min(place)) AS place
    FROM question CROSS JOIN drafts CROSS JOIN together CROSS JOIN LATERAL unnest(
        together.ids || CASE WHEN cardinality(together.ids) < $6
            THEN everturn_passages_with_any(
                words, drafts.ids, drafts.numbers, {_MOST_RANKED}, {_CANDIDATES}
            ) END
    ) WITH ORDINALITY AS held (id, place)
    GROUP BY id ORDER BY place LIMIT {_CANDIDATES}
"""  # noqa: S608 -- numbers

# A vector is read by a subquery once; without it each row would have it read again. What is
# published is found by the approximate index, which is used where its expression and condition
# are repeated to the letter; where that gives up, exactly. Drafts are always found exactly.
_NEAREST: Final = """
    SELECT id, embedding::{of_type} <=> (SELECT $4::real[]::{of_type}) AS distance FROM passages
    WHERE $4::real[] IS NOT NULL
      AND published AND vector_dims(embedding) = {dimensions} AND embedder = $5
    ORDER BY distance LIMIT {candidates}
"""
_NEAR: Final = f"""
    (SELECT id, distance FROM nearest WHERE (SELECT count(*) FROM nearest) >= {_CANDIDATES})
    UNION ALL
    (SELECT id, embedding <=> (SELECT $4::real[]::vector) AS distance FROM passages
     WHERE $4::real[] IS NOT NULL AND (SELECT count(*) FROM nearest) < {_CANDIDATES}
       AND published AND embedder = $5
     ORDER BY distance, id LIMIT {_CANDIDATES})
    UNION ALL
    (SELECT passages.id, passages.embedding <=> (SELECT $4::real[]::vector) AS distance
     FROM drafts CROSS JOIN LATERAL unnest(drafts.ids, drafts.numbers)
        AS draft (document_id, version)
     JOIN passages USING (document_id, version)
     WHERE $4::real[] IS NOT NULL AND passages.embedder = $5
     ORDER BY distance, passages.id LIMIT {_CANDIDATES})
"""  # noqa: S608 -- numbers
# A distance of NaN, e.g. of a vector of zeros, is greater than any.
_BY_MEANING: Final = f"""
    SELECT id, row_number() OVER (ORDER BY distance, id) AS place
    FROM near WHERE distance <= 1 - $7::float8
    ORDER BY distance, id LIMIT {_CANDIDATES}
"""  # noqa: S608 -- a number

# Sums of halves may end a little above what they stand for.
_FUSED: Final = f"""
    SELECT id, least(1, sum(
        ({_K} + 1)::float8 / ({_K} + place) / CASE WHEN $4::real[] IS NULL THEN 1 ELSE 2 END
    )) AS score
    FROM (SELECT * FROM by_words UNION ALL SELECT * FROM by_meaning) AS places
    GROUP BY id ORDER BY score DESC, id LIMIT $8
"""  # noqa: S608 -- a number


def search_statement(dimensions: int) -> str:
    """Return the statement that finds passages by words and by meaning, the best first.

    Its parameters: the question; the same without what a minus leaves out; the user; the
    question's vector, NULL if there is none; the name of its embedder; how many passages with
    all the words are enough, so that none are looked for with some of them; the cosine below
    which nothing is near; and how many to find. Its rows are those of `KnowledgeHit`.
    """
    of_type = f"{'vector' if dimensions <= _LONGEST_VECTOR else 'halfvec'}({dimensions})"
    nearest = _NEAREST.format(of_type=of_type, dimensions=dimensions, candidates=_CANDIDATES)
    return f"""
WITH question AS MATERIALIZED ({_QUESTION}), drafts AS MATERIALIZED ({_DRAFTS}),
together AS MATERIALIZED ({_TOGETHER}), by_words AS ({_BY_WORDS}),
nearest AS MATERIALIZED ({nearest}), near AS ({_NEAR}), by_meaning AS ({_BY_MEANING}),
fused AS MATERIALIZED ({_FUSED})
SELECT passages.document_id, documents.title, passages.version, passages.id AS passage_id,
       passages.position, passages.content, passages.start_char, passages.end_char,
       passages.user_id = $3 AS own, fused.score
FROM fused JOIN passages USING (id) JOIN documents ON documents.id = passages.document_id
WHERE passages.published OR passages.user_id = $3
ORDER BY fused.score DESC, passages.id
"""  # noqa: S608 -- statements from above


KNOWLEDGE_WITHOUT_VECTORS: Final = Counter(
    "everturn_knowledge_searches_without_vectors",
    "Knowledge searches by words alone, because the query could not be embedded.",
)

LONGEST_QUERY: Final = 2_000
_ENOUGH_BESIDE_VECTORS: Final = 1
"""Passages with all the words after which none with some of them are looked for: what is near in
meaning fills the rest, and a common word alone costs as much as everything else."""
_LEAST_SIMILARITY: Final = 0.2
"""The nearest passage may still be irrelevant. With the embedded model, irrelevant questions reach
0.13 and chance 0.18; most relevant ones start at 0.21."""
_LEAST_SIMILARITY_IN_A_PROMPT: Final = 0.25
"""Higher than for a search, whose user judges the results; a prompt's reader did not ask."""


class KnowledgeSearch:
    """Searches passages. Errors: every method raises DatabaseUnavailableError.

    Units: `vector_timeout` bounds the wait for the vector of a query.
    """

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        *,
        vector_timeout: timedelta = SEARCH_VECTOR_TIMEOUT,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._vector_timeout = vector_timeout
        self._search = acting_query(search_statement(embedder.dimensions), parameters=8)

    async def search(self, actor: Actor, request: SearchKnowledgeRequest) -> list[KnowledgeHit]:
        """Return the best passages; by words alone while the embedder is unavailable."""
        vector = await vector_or_none(
            self._embedder,
            request.query,
            purpose=Purpose.QUERY,
            within=self._vector_timeout,
            missed=KNOWLEDGE_WITHOUT_VECTORS,
        )
        return await self._find(
            actor, request.query, vector, limit=request.limit, least=_LEAST_SIMILARITY
        )

    async def relevant(
        self, actor: Actor, query: str, query_embedding: Sequence[float] | None, *, limit: int
    ) -> list[FoundPassage]:
        """Return the best passages for a query whose vector is known, or None.

        Passages found by meaning alone must be nearer than for `search`.

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
                passage_id=hit.passage_id,
                title=hit.title,
                content=hit.content,
                score=hit.score,
            )
            for hit in hits
        ]

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
