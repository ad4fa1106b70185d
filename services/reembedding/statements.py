"""Owns the SQL of embedding anew; `service.py` says when each statement runs.

What is stale has no vector, or one of another embedder. Both are read along the index of
embedders and ids: first what has none, then what comes before the embedder in use, then what
comes behind it; so that the rows that are as they should be are never looked at.
"""

from typing import Final

from schema.reembedding import EmbeddedKind

# A version that is still being ingested gets its vectors from its ingestion.
_FROM: Final = {
    EmbeddedKind.MEMORIES: "memories AS stale WHERE true",
    EmbeddedKind.PASSAGES: (
        "passages AS stale JOIN document_versions AS version "
        "ON version.document_id = stale.document_id AND version.number = stale.version "
        "WHERE version.status = 'ready'"
    ),
}


def batch(kind: EmbeddedKind) -> str:
    """Return the statement that reads the next stale rows.

    $1 is the embedder in use; $2 and $3 are the place behind which to begin, an embedder and an
    id, null and the nil id at first; $4 is how many.
    """
    of_nobody = f"""
(SELECT stale.embedder, stale.id, stale.content FROM {_FROM[kind]}
 AND stale.embedder IS NULL AND $2::text IS NULL AND stale.id > $3::uuid
 ORDER BY stale.id LIMIT $4)"""  # noqa: S608 -- names of tables
    of_others = [
        f"""
(SELECT stale.embedder, stale.id, stale.content FROM {_FROM[kind]}
 AND stale.embedder {side} $1 AND stale.embedder >= coalesce($2, '')
 AND (stale.embedder > coalesce($2, '') OR stale.id > $3)
 ORDER BY stale.embedder, stale.id LIMIT $4)"""  # noqa: S608 -- names of tables
        for side in ("<", ">")
    ]
    whole = " UNION ALL ".join([of_nobody, *of_others])
    return f"{whole} ORDER BY embedder NULLS FIRST, id LIMIT $4"


def count(kind: EmbeddedKind) -> str:
    """Return the statement that counts the stale rows."""
    stale = "(stale.embedder IS NULL OR stale.embedder < $1 OR stale.embedder > $1)"
    return f"SELECT count(*) FROM {_FROM[kind]} AND {stale}"  # noqa: S608 -- names of tables


def store(kind: EmbeddedKind) -> str:
    """Return the statement that stores vectors of texts that are still what they were."""
    return f"""
UPDATE {kind.value} AS held SET embedding = made.vector::vector, embedder = $1
FROM unnest($2::uuid[], $3::text[], $4::text[]) AS made (id, content, vector)
WHERE held.id = made.id AND held.content = made.content AND held.embedder IS DISTINCT FROM $1
RETURNING held.id
"""  # noqa: S608 -- the name of a table


# Whoever publishes or deletes a document has its row before those of its passages; having them
# in the same order nobody waits for each other.
HOLD_DOCUMENTS: Final = """
SELECT FROM documents WHERE id IN (SELECT document_id FROM passages WHERE id = ANY($1))
ORDER BY id FOR KEY SHARE
"""
