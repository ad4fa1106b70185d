"""Owns the SQL of the search of knowledge: one statement, as each further one costs a tenth more.

In all of it row-level security decides what is seen. Full text is the exception, see
`everturn_passages_with` in the migration of knowledge: it gives ids, which are read under it.

Source of the fusion: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet
and individual rank learning methods", SIGIR 2009.
"""

from typing import Final

_CANDIDATES: Final = 50
"""How far down each ranking goes."""
_K: Final = 60
"""How little the first places count above those behind them; the paper's own value."""
_MOST_RANKED: Final = 200
"""Passages whose words are compared: with more, common words cost more than all the rest."""
_MOST_TOGETHER: Final = 12
"""A question of more words is a text; no passage holds them all."""
_MOST_DRAFTS: Final = 10_000
"""Passages; drafts are searched exactly, so there is an end to them."""
_LONGEST_VECTOR: Final = 2_000
"""Beyond it, pgvector indexes numbers of half the precision."""

_QUESTION: Final = """
    SELECT websearch_to_tsquery('english', $1) AS query,
           tsvector_to_array(to_tsvector('english', $2)) AS words
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
# A distance that is no number, as of a vector of zeros, is greater than any.
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
    question's vector, NULL where there is none; the name of its embedder; how many passages with
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
