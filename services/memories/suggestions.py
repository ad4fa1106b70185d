"""Owns storing what a conversation suggests to remember, without repeating what is known."""

from collections.abc import Sequence

from sqlalchemy import String, cast
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import TurnId
from schema.memories import Memory, MemoryStatus, MemorySuggestion
from schema.tables import CreationRow, MemoryRow, TurnRow
from services.auth.accounts import AccountCache
from services.database import Database
from services.embeddings import Embedder, Purpose
from services.memories.likeness import alike
from services.memories.quota import count_locked
from services.memories.rows import WITHOUT_VECTOR, memory_from_row, new_row


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
        """Store what is new among the suggestions of a turn, and return it.

        What says the same as a memory that is there already, a rejected one included, is left
        out; so is what the plan has no room for. Nothing is learnt from a turn that has been
        deleted meanwhile.
        Errors: EmbeddingError.
        Idempotency: a turn from which memories have come already gives those, and no others.
        """
        if not suggestions:
            return []
        texts = [suggestion.content for suggestion in suggestions]
        vectors = await self._embedder.embed(texts, purpose=Purpose.DOCUMENT)
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

    def _rows(
        self,
        actor: Actor,
        suggestions: Sequence[MemorySuggestion],
        vectors: Sequence[list[float]],
    ) -> list[MemoryRow]:
        return [
            new_row(actor.user_id, suggestion, vector, embedder=self._embedder.name)
            for suggestion, vector in zip(suggestions, vectors, strict=True)
        ]

    async def _store_new(
        self, session: AsyncSession, rows: Sequence[MemoryRow], *, room: int
    ) -> list[MemoryRow]:
        """Add one row after the other, so that each is compared with those before it too."""
        stored: list[MemoryRow] = []
        for row in rows:
            if len(stored) < room and not await self._is_known(session, row):
                session.add(row)
                await session.flush()
                stored.append(row)
        return stored

    async def _is_known(self, session: AsyncSession, row: MemoryRow) -> bool:
        return await alike(session, row, embedder=self._embedder.name) is not None


async def _learnt_from(session: AsyncSession, turn_id: TurnId) -> list[MemoryRow]:
    """Return what was learnt from the turn; not what its user had the model remember in it."""
    wished = select(CreationRow.key).where(
        col(CreationRow.user_id) == col(MemoryRow.user_id),
        col(CreationRow.resource_id) == cast(col(MemoryRow.id), String),
    )
    query = select(MemoryRow).where(col(MemoryRow.source_turn_id) == turn_id, ~wished.exists())
    ordered = query.order_by(col(MemoryRow.id)).options(WITHOUT_VECTOR)
    return list((await session.exec(ordered)).all())
