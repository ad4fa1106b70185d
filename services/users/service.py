"""Owns accounts as their owners see and change them; deleting one is deletion.py's.

What is changed is written as the service: users read who they are, and change nothing of it by
themselves.
"""

from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.audit import AuditAction, ResourceType
from schema.result import Err, Ok, Result
from schema.tables import CredentialRow, UserRow
from schema.tables.columns import utc_now
from schema.users import ChangeUserRequest, User
from services.audit.recording import changed, record
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.passwords import Passwords
from services.auth.sessions import end_sessions, lock_user
from services.database import Database
from services.database.queries import by_id
from services.resources import Conflict, Unreachable, Versions, is_meant, touch

_USER: Final = by_id(UserRow)


class AccountRefusal(StrEnum):
    """Why an account was not changed."""

    PASSWORD_MISSING = "password_missing"  # noqa: S105 -- a reason, not a secret
    PASSWORD_WRONG = "password_wrong"  # noqa: S105 -- as above
    NO_PASSWORD = "no_password"  # noqa: S105 -- as above
    EMAIL_TAKEN = "email_taken"


class UserService:
    """Keeps accounts. Errors: DatabaseUnavailableError."""

    def __init__(
        self, database: Database, passwords: Passwords, invalidation: CacheInvalidation
    ) -> None:
        self._database = database
        self._invalidation = invalidation
        self._passwords = passwords

    async def get(self, actor: Actor) -> Result[User, Unreachable]:
        """Return the actor's own account; it is missing once it is gone."""
        async with self._database.statements(actor) as connection:
            row = await _USER.first(connection, id=actor.user_id)
        return (
            Err(Unreachable.MISSING)
            if row is None
            else Ok(User.model_validate(row, from_attributes=True))
        )

    async def change(
        self,
        actor: Actor,
        request: ChangeUserRequest,
        *,
        versions: Versions,
        session_id: UUID | None,
    ) -> Result[User, AccountRefusal | Conflict | Unreachable]:
        """Change the actor's account; `versions` are those it is meant for.

        A new password ends all sign-ins but `session_id`, their access tokens included.
        """
        changes = request.changes()
        proven = await self._proven(actor, changes)
        if isinstance(proven, Err):
            return proven
        new_password = changes.get("new_password")
        new_hash = None if new_password is None else await self._passwords.hash(new_password)
        ended: frozenset[UUID] = frozenset()
        async with self._database.transaction(SERVICE) as session:
            row = await lock_user(session, actor.user_id)
            if row is None:
                return Err(Unreachable.MISSING)
            if not is_meant(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            if not await _holds(session, actor, proven.value):
                return Err(AccountRefusal.PASSWORD_WRONG)
            if not await _store(session, row, changes):
                await session.rollback()
                return Err(AccountRefusal.EMAIL_TAKEN)
            if new_hash is not None:
                credential = await session.get_one(CredentialRow, actor.user_id)
                credential.password_hash, credential.updated_at = new_hash, utc_now()
                ended = await end_sessions(session, actor.user_id, but=session_id)
            _record(session, actor, changes)
        if ended:
            await self._invalidation.forget(Invalidation(sessions=tuple(ended)))
        return Ok(User.model_validate(row, from_attributes=True))

    async def _proven(
        self, actor: Actor, changes: dict[str, Any]
    ) -> Result[str | None, AccountRefusal]:
        """Return the hash of the password that was given, or None where none is needed."""
        given = changes.get("current_password")
        if given is None:
            wants_it = {"email", "new_password"} & changes.keys()
            return Err(AccountRefusal.PASSWORD_MISSING) if wants_it else Ok(None)
        # Hashes are hidden from everybody but the service.
        async with self._database.transaction(SERVICE) as session:
            credential = await session.get(CredentialRow, actor.user_id)
        if credential is None:
            return Err(AccountRefusal.NO_PASSWORD)
        if not await self._passwords.verify(given, credential.password_hash):
            return Err(AccountRefusal.PASSWORD_WRONG)
        return Ok(credential.password_hash)


async def _holds(session: AsyncSession, actor: Actor, proven: str | None) -> bool:
    """Whether what was proven is still the password, now that nobody else changes it."""
    if proven is None:
        return True
    credential = await session.get(CredentialRow, actor.user_id)
    return credential is not None and credential.password_hash == proven


async def _store(session: AsyncSession, row: UserRow, changes: dict[str, Any]) -> bool:
    """Write the row; False where the e-mail address is another account's."""
    if "display_name" in changes:
        row.display_name = changes["display_name"]
    if "email" in changes:
        row.email = changes["email"]
    touch(row)
    try:
        await session.flush()
    except IntegrityError:
        return False
    return True


def _record(session: AsyncSession, actor: Actor, changes: dict[str, Any]) -> None:
    """Note which fields were changed, and nothing of what they hold."""
    details = changed(changes.keys() - {"current_password"})
    account = (ResourceType.USER, actor.user_id)
    record(session, actor, AuditAction.USER_CHANGED, account, details=details)
