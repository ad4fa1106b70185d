"""The search of memories: by meaning and by words, both rankings fused by one statement.

Only accepted memories of one user that have not expired are searched, all of them exactly. There is
no approximate index on purpose: it would look for neighbours among all users' rows first and filter
afterwards, so a user with few of many rows could get none. An index of words would have the same
fault, and policies would keep Postgres from using it.

Vectors of another embedder than the one in use are never compared. Words are those of
`everturn_memory_words`, each weighted by how few of the user's memories have it.

Source of the fusion: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet
and individual rank learning methods", SIGIR 2009.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from prometheus_client import Counter

from schema.actors import Actor
from schema.memories import MemoryHit, SearchMemoriesRequest
from services.database import Database
from services.database.queries import acting_query
from services.embeddings import Embedder, Purpose
from services.embeddings.embedder import SEARCH_VECTOR_TIMEOUT, vector_or_none

_MOST_WORDS: Final = 12
"""The words of a query that are compared, the longest first. Each has a bit of a number."""
_CANDIDATES: Final = 100
"""The length of each ranking; a search returns no more."""
_K: Final = 60
"""The smoothing constant of the fusion, from the paper."""
_MOST_PINNED: Final = 50
"""Pinned memories that a prompt may get, the most important first."""

_QUESTION: Final = rf"""
    SELECT array_agg(query) AS queries, string_agg(query::text, ' | ')::tsquery AS any_of FROM (
        SELECT ('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''')::tsquery AS query
        FROM unnest(tsvector_to_array(everturn_memory_words($5))) AS word
        ORDER BY length(word) DESC, word LIMIT {_MOST_WORDS}
    ) AS words
"""  # noqa: S608 -- a number

# Which words a memory has is one number, found while its vector is read: to count and to weigh
# words, only the few numbers that occur are looked at. Most memories have none of them, which is
# seen by one comparison. A vector is read by a subquery once.
_HELD: Final = " + ".join(
    f"CASE WHEN search_text @@ (SELECT queries[{place + 1}] FROM question) THEN {1 << place} ELSE 0 END"  # noqa: E501, S608 -- numbers
    for place in range(_MOST_WORDS)
)
_MINE: Final = f"""
    SELECT id, importance, updated_at, pinned,
           CASE WHEN search_text @@ (SELECT any_of FROM question) THEN {_HELD} ELSE 0 END AS held,
           CASE WHEN embedder = $3 THEN embedding <=> (SELECT $2::real[]::vector) END AS distance
    FROM memories
    WHERE user_id = $1 AND status = 'accepted' AND (expires_at IS NULL OR expires_at > now())
"""  # noqa: S608 -- constants from above
_COUNTS: Final = "SELECT held, count(*) AS memories FROM mine GROUP BY held"
# As in BM25, without the parts for repeated words and long texts: memories are short.
_WEIGHTS: Final = """
    SELECT bit, ln(1 + (every - having_it + 0.5) / (having_it + 0.5))::float8 AS weight
    FROM (
        SELECT 1 << (place - 1)::int AS bit, sum(memories) AS every,
               coalesce(sum(memories) FILTER (
                   WHERE held & (1 << (place - 1)::int) <> 0), 0) AS having_it
        FROM question CROSS JOIN unnest(queries) WITH ORDINALITY AS word (query, place)
        CROSS JOIN counts GROUP BY place
    ) AS counted
"""
_MATCHES: Final = """
    SELECT held, sum(weight) / (SELECT sum(weight) FROM weights) AS word_match
    FROM counts JOIN weights ON held & bit <> 0 GROUP BY held
"""
# Rankings carry what is needed of their memories: to look them up again among all costs as much as
# to rank them.
_BY_WORDS: Final = f"""
    SELECT id, importance, updated_at, held, distance, row_number() OVER () AS place FROM (
        SELECT mine.* FROM mine JOIN matches USING (held)
        ORDER BY word_match DESC, id DESC LIMIT {_CANDIDATES}
    ) AS best
"""  # noqa: S608 -- a number
# A distance of NaN, e.g. of a vector of zeros, is greater than any.
_BY_MEANING: Final = f"""
    SELECT id, importance, updated_at, held, distance, row_number() OVER () AS place FROM (
        SELECT * FROM mine WHERE distance IS NOT NULL
        ORDER BY distance, id DESC LIMIT {_CANDIDATES}
    ) AS nearest
"""  # noqa: S608 -- a number

# The place decides; importance and age, at most 5 and 2 percent, break what is nearly a tie: a
# first place is worth 1.6 percent more than a second. The best attainable is 1.
_FUSED: Final = f"""
    SELECT id, min(held) AS held, min(distance) AS distance,
        least(1, sum(({_K} + 1)::float8 / ({_K} + place))
        / greatest(1, ($2::real[] IS NOT NULL)::int
                      + (SELECT (queries IS NOT NULL)::int FROM question))
        * (0.95 + 0.05 * min(importance))
        * (0.98 + 0.02 * 0.5::float8 ^ greatest(
            0, extract(epoch FROM now() - min(updated_at))::float8 / 7776000))
    ) AS score
    FROM (SELECT * FROM by_words UNION ALL SELECT * FROM by_meaning) AS places
    GROUP BY id ORDER BY score DESC, id DESC LIMIT $4
"""  # noqa: S608 -- numbers
_CHOSEN: Final = f"""
    SELECT id, held, distance, score FROM fused
    UNION ALL (
        SELECT id, held, distance, 0 FROM mine
        WHERE $6 AND pinned AND id NOT IN (SELECT id FROM fused)
        ORDER BY importance DESC, id DESC LIMIT {_MOST_PINNED}
    )
"""  # noqa: S608 -- a number

SEARCH_STATEMENT: Final = f"""
WITH question AS MATERIALIZED ({_QUESTION}), mine AS MATERIALIZED ({_MINE}),
counts AS MATERIALIZED ({_COUNTS}), weights AS MATERIALIZED ({_WEIGHTS}),
matches AS MATERIALIZED ({_MATCHES}), by_words AS ({_BY_WORDS}), by_meaning AS ({_BY_MEANING}),
fused AS MATERIALIZED ({_FUSED}), chosen AS MATERIALIZED ({_CHOSEN})
SELECT memories.id, memories.kind, memories.content, memories.importance, memories.status,
       memories.source_turn_id, memories.passage, memories.replaces_id, memories.replaced_by_id,
       memories.pinned, memories.expires_at, memories.version, memories.created_at,
       memories.updated_at, chosen.score, 1 - nullif(chosen.distance, 'NaN') AS similarity,
       coalesce(matches.word_match, 0) AS word_match
FROM chosen LEFT JOIN matches USING (held) JOIN memories USING (id)
ORDER BY ($6 AND memories.pinned) DESC, score DESC, id DESC
"""  # noqa: S608 -- statements from above
"""The statement that finds memories, the best first.

Its parameters: the user; the query's vector, NULL if there is none; the name of its embedder; how
many to find; the query; and whether all pinned memories are found, too, before the others. Its rows
are those of `MemoryHit`.
"""

MEMORIES_WITHOUT_VECTORS: Final = Counter(
    "everturn_memory_searches_without_vectors",
    "Memory searches by words alone, because the query could not be embedded.",
)

_LEAST_SIMILARITY: Final = 0.1
_LEAST_WORD_MATCH: Final = 0.15
"""Below both, a memory is irrelevant to a prompt. Measured with the embedded model on the set of
`make eval`: 92 of 100 answers are above, and one in six memories for an unrelated question."""


def is_relevant(hit: MemoryHit) -> bool:
    """Whether a memory that was found may have to do with the query."""
    return hit.word_match >= _LEAST_WORD_MATCH or (
        hit.similarity is not None and hit.similarity >= _LEAST_SIMILARITY
    )


class MemorySearch:
    """Searches the memories of the actor. Errors: every method raises DatabaseUnavailableError.

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
        self._search = acting_query(SEARCH_STATEMENT, parameters=6)

    async def search(self, actor: Actor, request: SearchMemoriesRequest) -> list[MemoryHit]:
        """Return the best memories; by words alone while the embedder is unavailable."""
        vector = await vector_or_none(
            self._embedder,
            request.query,
            purpose=Purpose.QUERY,
            within=self._vector_timeout,
            missed=MEMORIES_WITHOUT_VECTORS,
        )
        return await self._find(actor, request.query, vector, limit=request.limit, pinned=False)

    async def for_prompt(
        self, actor: Actor, query: str, query_embedding: Sequence[float] | None, *, limit: int
    ) -> list[MemoryHit]:
        """Return all pinned memories, then the best for a query whose vector is known, or None.

        What is found may be irrelevant, see `is_relevant`.
        Shapes: `query_embedding` is a vector of the embedder in use, L2-normalised.
        """
        return await self._find(actor, query, query_embedding, limit=limit, pinned=True)

    async def _find(
        self,
        actor: Actor,
        query: str,
        vector: Sequence[float] | None,
        *,
        limit: int,
        pinned: bool,
    ) -> list[MemoryHit]:
        given = (actor.user_id, vector, self._embedder.name, limit, query, pinned)
        rows = await self._database.fetch(actor, self._search, *given)
        return [MemoryHit.model_validate(dict(row)) for row in rows]
