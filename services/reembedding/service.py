"""Owns embedding anew what has no vector of the embedder in use.

That is everything after a change of embedders, and otherwise what was stored while the embedder
was away. Searches compare vectors of the embedder in use alone, so that what is stale is not
found by meaning until it has been here. All of it is done as the service, for all users; texts go
to the embedder and nowhere else.
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
from services.reembedding.statements import HOLD_DOCUMENTS, batch, count, store

_log = structlog.get_logger(__name__)

_FIRST: Final = UUID(int=0)
_REFUSALS_AT_ONCE: Final = 3
"""So many single texts refused one after the other mean that it is not the texts."""


@dataclass(frozen=True, slots=True)
class _Stale:
    """A row to embed."""

    id: UUID
    content: str


class Reembedding:
    """Embeds anew, batch by batch. Errors: every method raises DatabaseUnavailableError."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    async def count_stale(self) -> StaleCount:
        """Return how much there is to do."""
        async with self._database.statements(SERVICE) as connection:
            memories, passages = [
                await connection.fetchval(count(kind), self._embedder.name)
                for kind in (EmbeddedKind.MEMORIES, EmbeddedKind.PASSAGES)
            ]
        return StaleCount(memories=memories, passages=passages)

    async def embed_batch(self, wanted: EmbedBatchInput) -> EmbedBatchOutput:
        """Give one batch of rows vectors; those whose texts are refused are stepped over.

        Errors: EmbeddingError; EmbeddingRefusedError where not only single texts are refused.
        Idempotency: rows that have their vectors are not read again; a row that is changed
        meanwhile keeps what the change has given it.
        """
        limit = wanted.limit or self._embedder.max_batch
        after = wanted.after or EmbeddedPlace(embedder=None, id=_FIRST)
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(
                batch(wanted.kind), self._embedder.name, after.embedder, after.id, limit
            )
        # A vector of a blank text is refused by all, so nobody is asked for one.
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
        """Return a vector for each row, or None where its text is refused."""
        if not stale:
            return []
        texts = [row.content for row in stale]
        try:
            return [*await self._embedder.embed(texts, purpose=Purpose.DOCUMENT)]
        except EmbeddingRefusedError:
            return await self._one_by_one(stale)

    async def _one_by_one(self, stale: Sequence[_Stale]) -> list[list[float] | None]:
        """Find out which of the texts are refused; a key that is refused is so with any text."""
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
