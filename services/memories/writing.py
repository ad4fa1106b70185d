"""Stores the memories that a user asks for: at once, and only once.

Unlike suggestions they need no decision. Memories whose contents differ at most by case, width, and
spaces and punctuation around them are the same: `everturn_memory_key`. Near-duplicates are found by
their vectors. Both, and the quota, are looked at under a lock.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Float, Uuid, and_, column, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.ids import MemoryId, TurnId
from schema.memories import CreateMemoryRequest, Memory, MemoryStatus
from schema.result import Err, Ok, Result
from schema.tables import CreationRow, MemoryRow, TurnRow
from schema.tables.columns import utc_now
from services.auth.accounts import AccountCache
from services.database import Database
from services.database.connections import lock
from services.embeddings import Embedder
from services.embeddings.embedder import VECTOR_TIMEOUT, vector_or_none
from services.memories.rows import WITHOUT_VECTOR, memory_from_row, new_row
from services.resources import (
    Conflict,
    LimitReached,
    Unreachable,
    create_once,
    release_key,
    touch,
)


async def lock_memories(session: AsyncSession, actor: Actor) -> None:
    """Let no memory of the actor be added, or get another content, before the transaction ends."""
    await lock(session, "memories", of=actor.user_id)


async def count_locked(session: AsyncSession, actor: Actor) -> int:
    """Return how many memories the actor has; none is added before the transaction ends.

    Rejected ones count too: they are kept, so that they are not suggested again.
    """
    await lock_memories(session, actor)
    # A separate statement, after the lock: only then does it see what the lock waited for.
    query = select(func.count()).where(col(MemoryRow.user_id) == actor.user_id)
    return (await session.exec(query)).one()


_SAME_SCORE: Final = 0.92
"""The least cosine similarity of two memories that say the same."""


async def alike(
    session: AsyncSession, row: MemoryRow, *, embedder: str, status: MemoryStatus | None = None
) -> MemoryId | None:
    """Return a memory of the user that says the same as a new one, of any status if None.

    Replaced ones are history: what they said may become true again. The memory that the new one
    replaces, and those without a vector of this embedder, are compared by their words only.
    """
    query = select(MemoryRow.id).where(_has_words_of(row.user_id, row.content), _of_status(status))
    found = (await session.exec(query.limit(1))).first()
    if found is not None:
        return MemoryId(found)
    return await _with_same_meaning(session, row, embedder, status)


def _has_words_of(user_id: UUID, content: str) -> ColumnElement[bool]:
    # Computed by a subquery: policies keep a bare call from being looked up in the index.
    key = select(func.everturn_memory_key(content)).scalar_subquery()
    has_words: ColumnElement[bool] = column("words_key", Uuid) == key
    return and_(col(MemoryRow.user_id) == user_id, has_words)


async def same_memory(
    session: AsyncSession, user_id: UUID, content: str, *, but: UUID | None = None
) -> MemoryRow | None:
    """Return the user's accepted or suggested memory with the words of a content, locked.

    Call it under `lock_memories`. `but` is the id of one that is not meant.
    """
    query = (
        select(MemoryRow)
        .where(
            _has_words_of(user_id, content),
            or_(_of_status(MemoryStatus.ACCEPTED), _of_status(MemoryStatus.SUGGESTED)),
            col(MemoryRow.id).is_distinct_from(but),
        )
        .order_by(col(MemoryRow.status), col(MemoryRow.id))
        .options(WITHOUT_VECTOR)
    )
    return (await session.exec(query.limit(1).with_for_update())).first()


async def keep_same(
    session: AsyncSession, known: MemoryRow, new: MemoryRow, *, key: str | None
) -> "WrittenMemory":
    """Return the memory that says what a new one does; a suggestion is accepted.

    One that has expired is renewed, with the expiry of the new one.
    """
    is_accepted = known.status == MemoryStatus.ACCEPTED.value
    if is_accepted and (known.expires_at is None or known.expires_at > utc_now()):
        memory = memory_from_row(known)
        await release_key(session)
        return AlreadyStored(memory, is_identical=True)
    known.expires_at, known.pinned = new.expires_at, known.pinned or new.pinned
    return await _accept(session, known, key=key)


async def _accept(session: AsyncSession, row: MemoryRow, *, key: str | None) -> "StoredMemory":
    row.status = MemoryStatus.ACCEPTED.value
    touch(row)
    await session.flush()
    await mark_replaced(session, row)
    if key is not None:
        creation = await session.get_one(CreationRow, (row.user_id, key))
        creation.resource_id = str(row.id)
        await session.flush()
    return StoredMemory(memory_from_row(row))


async def _with_same_meaning(
    session: AsyncSession, row: MemoryRow, embedder: str, status: MemoryStatus | None
) -> MemoryId | None:
    """Return the nearest memory that has not expired, if it is near enough."""
    if row.embedding is None:
        return None
    distance = col(MemoryRow.embedding).op("<=>", return_type=Float())(row.embedding)
    query = select(MemoryRow.id).where(
        col(MemoryRow.user_id) == row.user_id,
        col(MemoryRow.embedder) == embedder,
        distance <= 1 - _SAME_SCORE,
        or_(col(MemoryRow.expires_at).is_(None), col(MemoryRow.expires_at) > func.now()),
    )
    if row.replaces_id is not None:
        query = query.where(col(MemoryRow.id) != row.replaces_id)
    ordered = query.where(_of_status(status)).order_by(distance, col(MemoryRow.id).desc()).limit(1)
    found = (await session.exec(ordered)).first()
    return None if found is None else MemoryId(found)


def _of_status(status: MemoryStatus | None) -> ColumnElement[bool]:
    if status is None:
        return col(MemoryRow.status) != MemoryStatus.REPLACED.value
    return col(MemoryRow.status) == status.value


async def mark_replaced(session: AsyncSession, row: MemoryRow) -> None:
    """Mark the memory that an accepted one replaces, if it is still in use; it is kept."""
    if row.replaces_id is None:
        return
    replaced = await session.get(
        MemoryRow, row.replaces_id, with_for_update=True, options=[WITHOUT_VECTOR]
    )
    if replaced is not None and replaced.status == MemoryStatus.ACCEPTED.value:
        replaced.status, replaced.replaced_by_id = MemoryStatus.REPLACED.value, row.id
        touch(replaced)
        await session.flush()


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """The memory is stored and accepted."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class AlreadyStored:
    """A memory that says the same is stored already; if it is identical, it always is the one."""

    memory: Memory
    is_identical: bool = False


WrittenMemory = StoredMemory | AlreadyStored


class MemoryWriter:
    """Stores memories on behalf of their users. Errors: DatabaseUnavailableError."""

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
    ) -> Result[WrittenMemory, LimitReached | Conflict]:
        """Store a memory, accepted; a suggestion that says the same is accepted instead.

        Without a vector, e.g. while the embedder is unavailable, only words are compared.
        Idempotency: the same key with the same request returns the memory stored before.
        """
        limit = (await self._accounts.entitlements_of(actor.user_id)).max_memories
        vector = await vector_or_none(self._embedder, request.content, within=VECTOR_TIMEOUT)
        row = new_row(actor.user_id, request, vector, embedder=self._embedder.name)

        async def create(session: AsyncSession) -> Result[WrittenMemory, LimitReached]:
            count = await count_locked(session, actor)
            if (known := await same_memory(session, actor.user_id, request.content)) is not None:
                return Ok(await keep_same(session, known, row, key=key))
            if not even_if_alike and (kept := await self._kept(session, row, key=key)):
                return Ok(kept)
            if count >= limit:
                return Err(LimitReached(limit))
            row.source_turn_id = await _still_there(session, source_turn_id)
            session.add(row)
            await session.flush()
            return Ok(StoredMemory(memory_from_row(row)))

        return await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=row.id,
            create=create,
            find=lambda earlier: self._find(actor, MemoryId(UUID(earlier))),
        )

    async def _find(self, actor: Actor, memory_id: MemoryId) -> Result[WrittenMemory, Unreachable]:
        async with self._database.transaction(actor) as session:
            row = await session.get(MemoryRow, memory_id, options=[WITHOUT_VECTOR])
        return Err(Unreachable.MISSING) if row is None else Ok(StoredMemory(memory_from_row(row)))

    async def _kept(
        self, session: AsyncSession, new: MemoryRow, *, key: str
    ) -> WrittenMemory | None:
        """Return a memory that means the same as `new`; rejected ones don't count."""
        name = self._embedder.name
        known = await _with_same_meaning(session, new, name, MemoryStatus.ACCEPTED)
        if known is not None:
            memory = memory_from_row(await _read(session, known))
            await release_key(session)
            return AlreadyStored(memory)
        suggested = await _with_same_meaning(session, new, name, MemoryStatus.SUGGESTED)
        if suggested is None:
            return None
        return await _accept(session, await _read(session, suggested), key=key)


async def _read(session: AsyncSession, memory_id: MemoryId) -> MemoryRow:
    # Locked, so that it is neither changed nor deleted in the meantime.
    return await session.get_one(
        MemoryRow, memory_id, with_for_update=True, options=[WITHOUT_VECTOR]
    )


async def _still_there(session: AsyncSession, turn_id: TurnId | None) -> UUID | None:
    """Return the turn, unless it was deleted in the meantime."""
    if turn_id is None or await session.get(TurnRow, turn_id) is None:
        return None
    return turn_id
