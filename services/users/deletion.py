"""Owns deleting an account with everything that its owner ever wrote.

The rows go by foreign keys, the ledger's too. What is kept: entries of the audit log, which hold
ids; a mark of outside identities, for a day; turns whose streams are still to be erased, by id.
"""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.audit import AuditAction, ResourceType
from schema.result import Err, Ok, Result
from schema.tables import ChatRow, TurnRow, UserRow
from schema.users import UserRole, UserStatus
from services.audit.recording import record
from services.auth.administrators import lock_administrators
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.outside_accounts import close_identities
from services.database import Database
from services.erasure import DeletedTurns, ask_for_erasure
from services.resources import Unreachable


class DeletionRefusal(StrEnum):
    """Why an account was not deleted."""

    LAST_ADMINISTRATOR = "last_administrator"


class UserDeletion:
    """Deletes accounts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, invalidation: CacheInvalidation) -> None:
        self._database = database
        self._invalidation = invalidation

    async def delete(self, actor: Actor) -> Result[DeletedTurns, DeletionRefusal | Unreachable]:
        """Delete the actor's account, and return its turns; nobody is signed in to it any more."""
        # Users may not delete their own row: only here is looked after what hangs on it.
        async with self._database.transaction(SERVICE) as session:
            user = await session.get(UserRow, actor.user_id)
            others: frozenset[UUID] = frozenset()
            if user is not None and _administers(user):
                others = await lock_administrators(session) - {user.id}
            user = await _locked(session, actor)
            if user is None:
                return Err(Unreachable.MISSING)
            if _administers(user) and not others:
                return Err(DeletionRefusal.LAST_ADMINISTRATOR)
            deleted = await _delete(session, actor)
            record(session, actor, AuditAction.USER_DELETED, (ResourceType.USER, actor.user_id))
        await self._invalidation.forget(Invalidation(users=(actor.user_id,)))
        return Ok(deleted)


def _administers(user: UserRow) -> bool:
    return user.role == UserRole.ADMIN and user.status == UserStatus.ACTIVE


async def _locked(session: AsyncSession, actor: Actor) -> UserRow | None:
    """Return the user as it is now, locked even against rows that refer to it."""
    query = select(UserRow).where(col(UserRow.id) == actor.user_id).with_for_update()
    return (await session.exec(query.execution_options(populate_existing=True))).first()


async def _delete(session: AsyncSession, actor: Actor) -> DeletedTurns:
    """Delete the rows, once nobody can add to them any more.

    A new chat waits for the lock of its user, a new turn for that of its chat: none comes in
    between being noted and being deleted.
    """
    chats = select(ChatRow.id).where(col(ChatRow.user_id) == actor.user_id)
    await session.exec(chats.order_by(col(ChatRow.id)).with_for_update())
    turns = await ask_for_erasure(session, col(TurnRow.user_id) == actor.user_id)
    await close_identities(session, actor.user_id)
    await session.exec(delete(UserRow).where(col(UserRow.id) == actor.user_id))
    return turns
