"""Memories as their owner manages them: create, list, change, accept or reject, delete."""

from datetime import timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Uuid, and_, bindparam, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import MemoryId
from schema.memories import (
    ChangeMemoryRequest,
    CreateMemoryRequest,
    Memory,
    MemoryFilter,
    MemorySort,
    MemoryStatus,
)
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import MemoryRow
from services.audit import record
from services.auth.accounts import AccountCache
from services.database import Database
from services.database.queries import CompiledQuery, Listing, Order, contains_searched, equals
from services.embeddings import Embedder
from services.embeddings.embedder import VECTOR_TIMEOUT, vector_or_none
from services.memories.rows import WITHOUT_VECTOR, memory_from_row, new_row
from services.memories.writing import (
    StoredMemory,
    WrittenMemory,
    count_locked,
    keep_same,
    lock_memories,
    mark_replaced,
    same_memory,
)
from services.resources import (
    Conflict,
    LimitReached,
    Unreachable,
    Versions,
    create_once,
    touch,
    version_matches,
    why_unreachable,
)

_CREATED: Final = (col(MemoryRow.id),)
_UPDATED: Final = (col(MemoryRow.updated_at), col(MemoryRow.id))
_IMPORTANCE: Final = (col(MemoryRow.importance), col(MemoryRow.id))
_ORDERS: Final = {
    MemorySort.CREATED: Order("createdAt", _CREATED),
    MemorySort.CREATED_LAST: Order("-createdAt", _CREATED, descending=True),
    MemorySort.UPDATED: Order("updatedAt", _UPDATED),
    MemorySort.UPDATED_LAST: Order("-updatedAt", _UPDATED, descending=True),
    MemorySort.IMPORTANCE: Order("importance", _IMPORTANCE),
    MemorySort.IMPORTANCE_LAST: Order("-importance", _IMPORTANCE, descending=True),
}
_OWN: Final = col(MemoryRow.user_id) == bindparam("owner_id", type_=Uuid)
_STATUS: Final[Any] = col(MemoryRow.status)
_PINNED: Final[Any] = col(MemoryRow.pinned)
_EXPIRES: Final = col(MemoryRow.expires_at)
_IN_FORCE: Final = or_(_EXPIRES.is_(None), func.now() < _EXPIRES)
_WITHOUT_VECTOR: Final = select(MemoryRow).options(WITHOUT_VECTOR)
_MEMORY: Final = CompiledQuery(
    _WITHOUT_VECTOR.where(col(MemoryRow.id) == bindparam("memory_id", type_=Uuid))
)
_MEMORIES: Final = Listing(
    _WITHOUT_VECTOR.where(_OWN),
    {
        **equals(col(MemoryRow.kind)),
        "status": {
            **{status: status == _STATUS for status in MemoryStatus},
            None: and_(_STATUS != MemoryStatus.REJECTED, _STATUS != MemoryStatus.REPLACED),
        },
        "pinned": {True: _PINNED, False: ~_PINNED},
        "expired": {True: func.now() >= _EXPIRES, False: _IN_FORCE},
        "search": contains_searched(MemoryRow.content),
    },
)


class MemoryRefusal(StrEnum):
    """Why a decision on a memory, or a change of it, is refused.

    It was decided otherwise before, or another memory has the same content.
    """

    SAME_CONTENT = "same_content"
    ACCEPTED_BEFORE = "accepted_before"
    REJECTED_BEFORE = "rejected_before"
    REPLACED_BEFORE = "replaced_before"


_DECIDED_BEFORE: Final = {
    MemoryStatus.ACCEPTED: MemoryRefusal.ACCEPTED_BEFORE,
    MemoryStatus.REJECTED: MemoryRefusal.REJECTED_BEFORE,
    MemoryStatus.REPLACED: MemoryRefusal.REPLACED_BEFORE,
}


class MemoryService:
    """Manages the memories of users. Errors: DatabaseUnavailableError.

    Vectors are requested before a transaction begins. A memory is stored even without one: it is
    found by its text, and by meaning once it has been embedded in the background.
    Units: `vector_timeout` bounds the wait for a vector.
    """

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        accounts: AccountCache,
        *,
        vector_timeout: timedelta = VECTOR_TIMEOUT,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._accounts = accounts
        self._vector_timeout = vector_timeout

    async def create(
        self, actor: Actor, request: CreateMemoryRequest, *, key: str | None
    ) -> Result[WrittenMemory, LimitReached | Conflict]:
        """Store a memory, accepted, unless the user has it: then that one is returned.

        Idempotency: the same key with the same request returns the memory created before.
        """
        limit = (await self._accounts.entitlements_of(actor.user_id)).max_memories
        vector = await vector_or_none(self._embedder, request.content, within=self._vector_timeout)
        row = new_row(actor.user_id, request, vector, embedder=self._embedder.name)

        async def create(session: AsyncSession) -> Result[WrittenMemory, LimitReached]:
            count = await count_locked(session, actor)
            if (known := await same_memory(session, actor.user_id, request.content)) is not None:
                return Ok(await keep_same(session, known, row, key=key))
            if count >= limit:
                return Err(LimitReached(limit))
            session.add(row)
            await session.flush()
            return Ok(StoredMemory(memory_from_row(row)))

        async def find(earlier: str) -> Result[WrittenMemory, Unreachable]:
            found = await self.get(actor, MemoryId(UUID(earlier)))
            return found if isinstance(found, Err) else Ok(StoredMemory(found.value))

        return await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=row.id,
            create=create,
            find=find,
        )

    async def list_memories(
        self, actor: Actor, chosen: MemoryFilter, page: PageRequest, *, sort: MemorySort
    ) -> Page[Memory]:
        """Return the actor's memories that match the filter, in the given order.

        Errors: InvalidCursorError.
        """
        wanted = {**vars(chosen), "owner_id": actor.user_id}
        async with self._database.statements(actor) as connection:
            rows = await _MEMORIES.read(connection, page, _ORDERS[sort], wanted)
        return rows.map(memory_from_row)

    async def get(self, actor: Actor, memory_id: MemoryId) -> Result[Memory, Unreachable]:
        """Return one memory."""
        async with self._database.statements(actor) as connection:
            row = await _MEMORY.first(connection, memory_id=memory_id)
        if row is None:
            return Err(await why_unreachable(self._database, MemoryRow, memory_id))
        return Ok(memory_from_row(row))

    async def change(
        self,
        actor: Actor,
        memory_id: MemoryId,
        request: ChangeMemoryRequest,
        *,
        versions: Versions,
    ) -> Result[Memory, MemoryRefusal | Conflict | Unreachable]:
        """Change a memory if its version is one of `versions`; a new text is embedded again.

        Errors: `MemoryRefusal.SAME_CONTENT` for the content of another memory in use.
        """
        # Read first, so that no vector is computed for a memory that can't be changed.
        found = await self.get(actor, memory_id)
        if isinstance(found, Err):
            return found
        changes = request.changes()
        vector = None
        if "content" in changes:
            vector = await vector_or_none(
                self._embedder, changes["content"], within=self._vector_timeout
            )
        async with self._database.transaction(actor) as session:
            if "content" in changes:
                await lock_memories(session, actor)
            row = await _locked(session, memory_id)
            if row is not None:
                if not version_matches(row.version, versions):
                    return Err(Conflict.VERSION_CHANGED)
                if "content" in changes and await _is_taken(session, row, changes["content"]):
                    return Err(MemoryRefusal.SAME_CONTENT)
                self._apply(row, changes, vector)
                await session.flush()
                return Ok(memory_from_row(row))
        return Err(await why_unreachable(self._database, MemoryRow, memory_id))

    async def delete(self, actor: Actor, memory_id: MemoryId) -> Result[None, Unreachable]:
        """Delete a memory for good; the same may then be suggested again."""
        async with self._database.transaction(actor) as session:
            row = await _locked(session, memory_id)
            if row is not None:
                await session.delete(row)
                record(session, actor, AuditAction.MEMORY_DELETED, (ResourceType.MEMORY, memory_id))
                return Ok(None)
        return Err(await why_unreachable(self._database, MemoryRow, memory_id))

    async def accept(
        self, actor: Actor, memory_id: MemoryId
    ) -> Result[Memory, MemoryRefusal | Unreachable]:
        """Accept a suggestion, so that it is found and used; what it replaces no longer is.

        Idempotency: accepting again changes nothing.
        """
        return await self._decide(actor, memory_id, MemoryStatus.ACCEPTED)

    async def reject(
        self, actor: Actor, memory_id: MemoryId
    ) -> Result[Memory, MemoryRefusal | Unreachable]:
        """Reject a suggestion; it is kept, so that the same is not suggested again.

        Idempotency: rejecting again changes nothing.
        """
        return await self._decide(actor, memory_id, MemoryStatus.REJECTED)

    async def _decide(
        self, actor: Actor, memory_id: MemoryId, status: MemoryStatus
    ) -> Result[Memory, MemoryRefusal | Unreachable]:
        async with self._database.transaction(actor) as session:
            row = await _locked(session, memory_id)
            if row is not None:
                before = MemoryStatus(row.status)
                if before not in {MemoryStatus.SUGGESTED, status}:
                    return Err(_DECIDED_BEFORE[before])
                if before is MemoryStatus.SUGGESTED:
                    row.status = status.value
                    touch(row)
                    await session.flush()
                    if status is MemoryStatus.ACCEPTED:
                        await mark_replaced(session, row)
                return Ok(memory_from_row(row))
        return Err(await why_unreachable(self._database, MemoryRow, memory_id))

    def _apply(self, row: MemoryRow, changes: dict[str, Any], vector: list[float] | None) -> None:
        # An unchanged text keeps its vector if there is no newer one.
        if vector is not None or changes.get("content", row.content) != row.content:
            row.embedding = vector
            row.embedder = None if vector is None else self._embedder.name
        for name, value in changes.items():
            setattr(row, name, value)
        touch(row)


async def _is_taken(session: AsyncSession, row: MemoryRow, content: str) -> bool:
    """Whether another memory has the content that this one is to get."""
    in_use = {MemoryStatus.ACCEPTED.value, MemoryStatus.SUGGESTED.value}
    if row.status not in in_use:
        return False
    return await same_memory(session, row.user_id, content, but=row.id) is not None


async def _locked(session: AsyncSession, memory_id: MemoryId) -> MemoryRow | None:
    return await session.get(MemoryRow, memory_id, with_for_update=True, options=[WITHOUT_VECTOR])
