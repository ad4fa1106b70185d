"""Owns keeping what a user, in a chat, asks to be remembered: at once, and once.

Unlike what is suggested it needs no decision: the wish is the decision.
"""

from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import MemoryId, TurnId
from schema.memories import CreateMemoryRequest, Memory, MemoryStatus
from schema.result import Err, Ok, Result
from schema.tables import CreationRow, MemoryRow, TurnRow
from services.auth.accounts import AccountCache
from services.database import Database
from services.embeddings import Embedder, EmbeddingError, Purpose
from services.embeddings.vectors import PATIENCE, vector_of
from services.memories.likeness import alike
from services.memories.quota import count_locked
from services.memories.rows import WITHOUT_VECTOR, memory_from_row, new_row
from services.resources import Conflict, LimitReached, Unreachable, create_once, release_key, touch

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Remembered:
    """The memory is kept and accepted."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class KnownBefore:
    """A memory that says the same is kept already."""

    memory: Memory


Kept = Remembered | KnownBefore


class Remembering:
    """Keeps memories in the name of their users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, embedder: Embedder, accounts: AccountCache) -> None:
        self._database = database
        self._embedder = embedder
        self._accounts = accounts

    async def remember(
        self,
        actor: Actor,
        request: CreateMemoryRequest,
        *,
        key: str,
        source_turn_id: TurnId | None,
        even_if_alike: bool,
    ) -> Result[Kept, LimitReached | Conflict]:
        """Keep a memory, accepted; what was suggested and says the same is accepted instead.

        Without a vector, as while the embedder is away, only the same words count as the same.
        Idempotency: the same key with the same request gives the memory that it made before.
        """
        limit = (await self._accounts.entitlements_of(actor.user_id)).max_memories
        vector = await self._vector_of(request.content)
        row = new_row(actor.user_id, request, vector, embedder=self._embedder.name)

        async def create(session: AsyncSession) -> Result[Kept, LimitReached]:
            count = await count_locked(session, actor)
            if not even_if_alike and (kept := await self._kept(session, actor, row, key=key)):
                return Ok(kept)
            if count >= limit:
                return Err(LimitReached(limit))
            row.source_turn_id = await _still_there(session, source_turn_id)
            session.add(row)
            await session.flush()
            return Ok(Remembered(memory_from_row(row)))

        return await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=row.id,
            create=create,
            find=lambda earlier: self._find(actor, MemoryId(UUID(earlier))),
        )

    async def _find(self, actor: Actor, memory_id: MemoryId) -> Result[Kept, Unreachable]:
        async with self._database.transaction(actor) as session:
            row = await session.get(MemoryRow, memory_id, options=[WITHOUT_VECTOR])
        return Err(Unreachable.MISSING) if row is None else Ok(Remembered(memory_from_row(row)))

    async def _kept(
        self, session: AsyncSession, actor: Actor, new: MemoryRow, *, key: str
    ) -> Kept | None:
        """Return what says the same as `new`; a rejected memory does not stand against a wish."""
        name = self._embedder.name
        known = await alike(session, new, embedder=name, status=MemoryStatus.ACCEPTED)
        if known is not None:
            memory = memory_from_row(await _read(session, known))
            await release_key(session)
            return KnownBefore(memory)
        suggested = await alike(session, new, embedder=name, status=MemoryStatus.SUGGESTED)
        if suggested is None:
            return None
        row = await _read(session, suggested)
        row.status = MemoryStatus.ACCEPTED.value
        touch(row)
        creation = await session.get_one(CreationRow, (actor.user_id, key))
        creation.resource_id = str(suggested)
        await session.flush()
        return Remembered(memory_from_row(row))

    async def _vector_of(self, content: str) -> list[float] | None:
        try:
            return await vector_of(
                self._embedder, content, purpose=Purpose.DOCUMENT, patience=PATIENCE
            )
        except EmbeddingError as error:
            _log.warning("memory_not_embedded", cause=type(error).__name__)
            return None


async def _read(session: AsyncSession, memory_id: MemoryId) -> MemoryRow:
    # Locked, so that it is neither changed nor deleted before this is done.
    return await session.get_one(
        MemoryRow, memory_id, with_for_update=True, options=[WITHOUT_VECTOR]
    )


async def _still_there(session: AsyncSession, turn_id: TurnId | None) -> UUID | None:
    """Return the turn, unless it was deleted while the model asked for this."""
    if turn_id is None or await session.get(TurnRow, turn_id) is None:
        return None
    return turn_id
