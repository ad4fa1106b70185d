"""Owns the SQL of the search of knowledge; `search.py` says when each statement runs.

Vectors come as text, which a subquery reads once; without it each row would have it read again.
In all of them row-level security decides what is seen. Full text is the exception, see
`everturn_passages_with` in the migration of knowledge: it gives ids, which are read under it.
"""

from typing import Final

_LONGEST_VECTOR: Final = 2_000
"""Beyond it, pgvector indexes numbers of half the precision."""

# Of a document with nothing published its owner finds the latest version that is ready. Drafts
# are searched exactly, so there is an end to them; the newest documents come first.
QUESTION: Final = """
SELECT question.query::text AS query,
       coalesce(querytree(question.query), '') NOT IN ('', 'T') AS is_indexable,
       question.words,
       (SELECT reltuples > 20000 FROM pg_class WHERE oid = 'passages'::regclass) AS is_large,
       drafts.ids AS draft_ids, drafts.numbers AS draft_numbers
FROM (
    SELECT websearch_to_tsquery('english', $1) AS query,
           tsvector_to_array(to_tsvector('english', $2)) AS words
) AS question
CROSS JOIN (
    SELECT coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(number), '{}') AS numbers
    FROM (
        SELECT documents.id, latest.number,
               sum(latest.passage_count) OVER (ORDER BY documents.id DESC) AS passages
        FROM documents CROSS JOIN LATERAL (
            SELECT number, passage_count FROM document_versions
            WHERE document_id = documents.id AND status = 'ready' ORDER BY number DESC LIMIT 1
        ) AS latest
        WHERE documents.user_id = $3 AND documents.published_version IS NULL
    ) AS versions
    WHERE passages <= 10000
) AS drafts
"""

RARE_FIRST: Final = """
SELECT coalesce(array_agg(word ORDER BY place), '{}')
FROM everturn_rare_first($1, $2, $3) WITH ORDINALITY AS rare (word, place)
"""

NEAREST_DRAFTS: Final = """
SELECT passages.id, passages.embedding <=> (SELECT $1::text::vector) AS distance
FROM unnest($3::uuid[], $4::integer[]) AS drafts (document_id, version)
JOIN passages USING (document_id, version)
WHERE passages.embedder = $2
ORDER BY distance, passages.id LIMIT $5
"""

NEAREST_EXACTLY: Final = """
SELECT id, embedding <=> (SELECT $1::text::vector) AS distance FROM passages
WHERE published AND embedder = $2
ORDER BY distance, id LIMIT $3
"""

WITH_WORDS: Final = """
SELECT passage_id, count(*) OVER () AS matches
FROM everturn_passages_with($1::text::tsquery, $2::text::tsquery, $3, $4, $5)
ORDER BY rank DESC, passage_id LIMIT $6
"""

PASSAGES: Final = """
SELECT passages.document_id, documents.title, passages.version, passages.id AS passage_id,
       passages.position, passages.content, passages.start_char, passages.end_char,
       passages.user_id = $2 AS own
FROM passages JOIN documents ON documents.id = passages.document_id
WHERE passages.id = ANY($1) AND (passages.published OR passages.user_id = $2)
"""


def nearest(dimensions: int) -> str:
    """Return the statement for neighbours among what is published, by the approximate index.

    It repeats the index's expression and condition to the letter; otherwise it is not used.
    """
    of_type = f"{'vector' if dimensions <= _LONGEST_VECTOR else 'halfvec'}({dimensions})"
    return f"""
SELECT id, distance FROM (
    SELECT id, embedding::{of_type} <=> (SELECT $1::text::{of_type}) AS distance FROM passages
    WHERE published AND vector_dims(embedding) = {dimensions} AND embedder = $2
    ORDER BY distance LIMIT $3
) AS neighbours
ORDER BY distance, id
"""  # noqa: S608 -- a type's name and a number
