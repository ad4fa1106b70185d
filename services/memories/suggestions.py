"""Stores the memories that a conversation suggests, without near-duplicates."""

from collections.abc import Sequence

import structlog
from sqlalchemy import String, cast
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import TurnId
from schema.memories import Memory, MemoryStatus, MemorySuggestion
from schema.tables import CreationRow, MemoryRow, TurnRow
from services.auth.accounts import AccountCache
from services.database import Database
from services.embeddings import Embedder, EmbeddingError, Purpose
from services.memories.rows import WITHOUT_VECTOR, memory_from_row, new_row
from services.memories.writing import alike, count_locked, mark_replaced

_log = structlog.get_logger(__name__)


class MemorySuggestions:
    """Stores suggestions. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, embedder: Embedder, accounts: AccountCache) -> None:
        self._database = database
        self._embedder = embedder
        self._accounts = accounts

    async def suggest(
        self,
        actor: Actor,
        suggestions: Sequence[MemorySuggestion],
        *,
        source_turn_id: TurnId,
        auto_accept: bool,
    ) -> list[Memory]:
        """Store the new ones among the suggestions of a turn, and return them.

        Near-duplicates of existing memories, rejected ones included, are left out, and so is what
        exceeds the plan's limit. One that contradicts a memory replaces it once it is accepted.
        Nothing is stored for a turn that was deleted in the meantime.
        Without vectors only words are compared; they are embedded later.
        Idempotency: a turn that already has suggestions returns those, and no others.
        """
        if not suggestions:
            return []
        texts = [suggestion.content for suggestion in suggestions]
        vectors = await self._vectors(texts)
        limit = (await self._accounts.entitlements_of(actor.user_id)).max_memories
        status = MemoryStatus.ACCEPTED if auto_accept else MemoryStatus.SUGGESTED
        async with self._database.transaction(actor) as session:
            room = limit - await count_locked(session, actor)
            rows = await _learnt_from(session, source_turn_id)
            if not rows and await session.get(TurnRow, source_turn_id) is not None:
                made = self._rows(actor, suggestions, vectors)
                for row in made:
                    row.status, row.source_turn_id = status.value, source_turn_id
                rows = await self._store_new(session, made, room=room)
        return [memory_from_row(row) for row in rows]

    async def of_turn(self, actor: Actor, turn_id: TurnId) -> list[Memory]:
        """Return the suggestions of a turn."""
        async with self._database.transaction(actor) as session:
            return [memory_from_row(row) for row in await _learnt_from(session, turn_id)]

    async def _vectors(self, texts: Sequence[str]) -> Sequence[list[float] | None]:
        try:
            return await self._embedder.embed(texts, purpose=Purpose.DOCUMENT)
        except EmbeddingError as error:
            _log.warning("suggestions_not_embedded", cause=type(error).__name__)
            return [None] * len(texts)

    def _rows(
        self,
        actor: Actor,
        suggestions: Sequence[MemorySuggestion],
        vectors: Sequence[list[float] | None],
    ) -> list[MemoryRow]:
        return [
            _row(actor, suggestion, vector, embedder=self._embedder.name)
            for suggestion, vector in zip(suggestions, vectors, strict=True)
        ]

    async def _store_new(
        self, session: AsyncSession, rows: Sequence[MemoryRow], *, room: int
    ) -> list[MemoryRow]:
        """Add one row after another, so that each is compared with those before it, too."""
        stored: list[MemoryRow] = []
        for row in rows:
            await _check_replaced(session, row)
            if len(stored) < room and not await self._is_known(session, row):
                session.add(row)
                await session.flush()
                stored.append(row)
                if row.status == MemoryStatus.ACCEPTED.value:
                    await mark_replaced(session, row)
        return stored

    async def _is_known(self, session: AsyncSession, row: MemoryRow) -> bool:
        return await alike(session, row, embedder=self._embedder.name) is not None


def _row(
    actor: Actor, suggestion: MemorySuggestion, vector: list[float] | None, *, embedder: str
) -> MemoryRow:
    row = new_row(actor.user_id, suggestion, vector, embedder=embedder)
    row.passage, row.replaces_id = suggestion.passage, suggestion.replaces_id
    return row


async def _check_replaced(session: AsyncSession, row: MemoryRow) -> None:
    """Let the new memory replace none that is no longer in use; lock the one that it does."""
    if row.replaces_id is not None:
        query = select(MemoryRow.id).where(
            col(MemoryRow.id) == row.replaces_id,
            col(MemoryRow.status) == MemoryStatus.ACCEPTED.value,
        )
        row.replaces_id = (await session.exec(query.with_for_update())).first()


async def _learnt_from(session: AsyncSession, turn_id: TurnId) -> list[MemoryRow]:
    """Return the suggestions of the turn, without what its user asked the model to remember."""
    wished = select(CreationRow.key).where(
        col(CreationRow.user_id) == col(MemoryRow.user_id),
        col(CreationRow.resource_id) == cast(col(MemoryRow.id), String),
    )
    query = select(MemoryRow).where(col(MemoryRow.source_turn_id) == turn_id, ~wished.exists())
    ordered = query.order_by(col(MemoryRow.id)).options(WITHOUT_VECTOR)
    return list((await session.exec(ordered)).all())
