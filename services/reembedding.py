"""Re-embeds memories and passages that have no vector of the embedder in use.

That is everything after a change of embedders, and otherwise what was stored while the embedder
was unavailable. Searches compare vectors of the embedder in use only, so stale rows are not found
by meaning until they are re-embedded. All of it is done as the service, for all users; texts go to
the embedder and nowhere else.

Stale rows have no vector, or one of another embedder. Both are read along the index of embedders
and ids: first the rows without a vector, then those before the embedder in use, then those behind
it; so rows that are up to date are never read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from schema.actors import SERVICE
from schema.reembedding import (
    EmbedBatchInput,
    EmbedBatchOutput,
    EmbeddedKind,
    EmbeddedPlace,
    StaleCount,
)
from services.database import Database
from services.embeddings import Embedder, EmbeddingRefusedError, Purpose

_log = structlog.get_logger(__name__)

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
    without_vector = f"""
(SELECT stale.embedder, stale.id, stale.content FROM {_FROM[kind]}
 AND stale.embedder IS NULL AND $2::text IS NULL AND stale.id > $3::uuid
 ORDER BY stale.id LIMIT $4)"""  # noqa: S608 -- names of tables
    of_other_embedders = [
        f"""
(SELECT stale.embedder, stale.id, stale.content FROM {_FROM[kind]}
 AND stale.embedder {side} $1 AND stale.embedder >= coalesce($2, '')
 AND (stale.embedder > coalesce($2, '') OR stale.id > $3)
 ORDER BY stale.embedder, stale.id LIMIT $4)"""  # noqa: S608 -- names of tables
        for side in ("<", ">")
    ]
    whole = " UNION ALL ".join([without_vector, *of_other_embedders])
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


# Publishing and deleting lock a document's row before its passages; the same order here avoids
# deadlocks.
HOLD_DOCUMENTS: Final = """
SELECT FROM documents WHERE id IN (SELECT document_id FROM passages WHERE id = ANY($1))
ORDER BY id FOR KEY SHARE
"""


_FIRST: Final = UUID(int=0)
_REFUSALS_AT_ONCE: Final = 3
"""This many refusals in a row mean that the texts are not the reason."""


@dataclass(frozen=True, slots=True)
class _Stale:
    """A row to embed."""

    id: UUID
    content: str


class Reembedding:
    """Re-embeds batch by batch. Errors: every method raises DatabaseUnavailableError."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    async def is_any_stale(self) -> bool:
        """Whether any row is stale; reads the index up to the first."""
        async with self._database.statements(SERVICE) as connection:
            for kind in EmbeddedKind:
                first = await connection.fetchrow(batch(kind), self._embedder.name, None, _FIRST, 1)
                if first is not None:
                    return True
        return False

    async def count_stale(self) -> StaleCount:
        """Return how many rows are stale."""
        async with self._database.statements(SERVICE) as connection:
            memories, passages = [
                await connection.fetchval(count(kind), self._embedder.name)
                for kind in (EmbeddedKind.MEMORIES, EmbeddedKind.PASSAGES)
            ]
        return StaleCount(memories=memories, passages=passages)

    async def embed_batch(self, wanted: EmbedBatchInput) -> EmbedBatchOutput:
        """Give one batch of rows vectors; rows whose texts are refused are skipped.

        Errors: EmbeddingError; EmbeddingRefusedError if more than single texts are refused.
        Idempotency: rows with current vectors are not read again; a row that was changed in the
        meantime keeps the vector of the change.
        """
        limit = wanted.limit or self._embedder.max_batch
        after = wanted.after or EmbeddedPlace(embedder=None, id=_FIRST)
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(
                batch(wanted.kind), self._embedder.name, after.embedder, after.id, limit
            )
        # Every embedder refuses blank texts, so they are not sent.
        stale = [_Stale(row["id"], row["content"]) for row in rows if row["content"].strip()]
        vectors = await self._vectors_of(stale)
        await self._store(wanted.kind, stale, vectors)
        embedded = sum(vector is not None for vector in vectors)
        is_last = len(rows) < limit
        return EmbedBatchOutput(
            embedded=embedded,
            skipped=len(rows) - embedded,
            place=None
            if is_last
            else EmbeddedPlace(embedder=rows[-1]["embedder"], id=rows[-1]["id"]),
        )

    async def _vectors_of(self, stale: Sequence[_Stale]) -> list[list[float] | None]:
        """Return a vector for each row, or None if its text is refused."""
        if not stale:
            return []
        texts = [row.content for row in stale]
        try:
            return [*await self._embedder.embed(texts, purpose=Purpose.DOCUMENT)]
        except EmbeddingRefusedError:
            return await self._one_by_one(stale)

    async def _one_by_one(self, stale: Sequence[_Stale]) -> list[list[float] | None]:
        """Embed texts one by one to find the refused ones; a refused key refuses every text."""
        vectors: list[list[float] | None] = []
        refused = 0
        for row in stale:
            try:
                vectors += await self._embedder.embed([row.content], purpose=Purpose.DOCUMENT)
                refused = 0
            except EmbeddingRefusedError:
                refused += 1
                if refused == min(_REFUSALS_AT_ONCE, len(stale)):
                    raise
                _log.warning("text_not_embedded", row_id=str(row.id))
                vectors.append(None)
        return vectors

    async def _store(
        self, kind: EmbeddedKind, stale: Sequence[_Stale], vectors: Sequence[list[float] | None]
    ) -> None:
        made = [
            (row.id, row.content, f"[{','.join(map(str, vector))}]")
            for row, vector in zip(stale, vectors, strict=True)
            if vector is not None
        ]
        if not made:
            return
        ids, contents, texts = map(list, zip(*made, strict=True))
        async with self._database.statements(SERVICE) as connection:
            if kind is EmbeddedKind.PASSAGES:
                await connection.execute(HOLD_DOCUMENTS, ids)
            await connection.execute(store(kind), self._embedder.name, ids, contents, texts)
