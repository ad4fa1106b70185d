"""Accounts as their owners see, change and delete them.

Changes are written as the service: users may read their own row, but not write it. Deletion
removes everything that the owner ever wrote; the rows go by foreign keys, the ledger's too. What
stays: entries of the audit log, which hold ids; a mark of external identities, for a day; and ids
of turns whose streams are still to be erased.
"""

from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.audit import AuditAction, ResourceType
from schema.mail import MailKind, MailReference
from schema.result import Err, Ok, Result
from schema.tables import ChatRow, CredentialRow, TurnRow, UserRow
from schema.tables.columns import utc_now
from schema.users import ChangeUserRequest, User, UserRole, UserStatus
from services.audit import changed, record
from services.auth.accounts import lock_administrators
from services.auth.credentials import Passwords
from services.auth.external_accounts import close_identities
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import end_sessions, lock_user
from services.database import Database
from services.database.queries import by_id
from services.erasure import DeletedTurns, ask_for_erasure
from services.mail.outbox import Outbox
from services.resources import Conflict, Unreachable, Versions, touch, version_matches

_USER: Final = by_id(UserRow)


class AccountRefusal(StrEnum):
    """Why an account was not changed."""

    PASSWORD_MISSING = "password_missing"  # noqa: S105 -- a reason, not a secret
    PASSWORD_WRONG = "password_wrong"  # noqa: S105 -- as above
    NO_PASSWORD = "no_password"  # noqa: S105 -- as above
    EMAIL_TAKEN = "email_taken"


class UserService:
    """Manages accounts for their owners. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        invalidation: CacheInvalidation,
        outbox: Outbox,
    ) -> None:
        self._database = database
        self._invalidation = invalidation
        self._passwords = passwords
        self._outbox = outbox

    async def get(self, actor: Actor) -> Result[User, Unreachable]:
        """Return the actor's own account; missing once it is deleted."""
        async with self._database.statements(actor) as connection:
            row = await _USER.first(connection, id=actor.user_id)
        return Err(Unreachable.MISSING) if row is None else Ok(User.model_validate(row))

    async def change(
        self,
        actor: Actor,
        request: ChangeUserRequest,
        *,
        versions: Versions,
        session_id: UUID | None,
    ) -> Result[User, AccountRefusal | Conflict | Unreachable]:
        """Change the actor's account, if its version is one of `versions`.

        A new password ends all sign-ins but `session_id`, their access tokens included. A new email
        replaces the old one once it is verified, or at once where no mail is sent.
        """
        changes = request.changes()
        verified = await self._verified_hash(actor, changes)
        if isinstance(verified, Err):
            return verified
        new_password = changes.get("new_password")
        new_hash = None if new_password is None else await self._passwords.hash(new_password)
        ended: frozenset[UUID] = frozenset()
        mails: list[MailReference | None] = []
        async with self._database.transaction(SERVICE) as session:
            row = await lock_user(session, actor.user_id)
            if row is None:
                return Err(Unreachable.MISSING)
            if not version_matches(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            if not await _is_current(session, actor, verified.value):
                return Err(AccountRefusal.PASSWORD_WRONG)
            if not await _store(session, row, changes, verify=self._outbox.is_open):
                await session.rollback()
                return Err(AccountRefusal.EMAIL_TAKEN)
            if "email" in changes and row.pending_email is not None:
                mails += await self._announce_email(session, row)
            if new_hash is not None:
                mails.append(await self._outbox.add(session, MailKind.PASSWORD_CHANGED, row))
                credential = await session.get_one(CredentialRow, actor.user_id)
                credential.password_hash, credential.updated_at = new_hash, utc_now()
                ended = await end_sessions(session, actor.user_id, but=session_id)
            _record(session, actor, changes)
        if ended or "email" in changes:
            stale = Invalidation(users=(actor.user_id,), sessions=tuple(ended))
            await self._invalidation.publish(stale)
        self._outbox.send(*mails)
        return Ok(User.model_validate(row))

    async def _announce_email(
        self, session: AsyncSession, row: UserRow
    ) -> list[MailReference | None]:
        """Send a link to the new address, and word of it to the old one."""
        verification, notice = MailKind.EMAIL_VERIFICATION, MailKind.EMAIL_CHANGE
        return [
            await self._outbox.add(session, verification, row, address=row.pending_email),
            await self._outbox.add(session, notice, row),
        ]

    async def _verified_hash(
        self, actor: Actor, changes: dict[str, Any]
    ) -> Result[str | None, AccountRefusal]:
        """Return the hash of the given password, or None if no password is needed."""
        given = changes.get("current_password")
        if given is None:
            needed = {"email", "new_password"} & changes.keys()
            return Err(AccountRefusal.PASSWORD_MISSING) if needed else Ok(None)
        # Only the service may read hashes.
        async with self._database.transaction(SERVICE) as session:
            credential = await session.get(CredentialRow, actor.user_id)
        if credential is None:
            return Err(AccountRefusal.NO_PASSWORD)
        if not await self._passwords.verify(given, credential.password_hash):
            return Err(AccountRefusal.PASSWORD_WRONG)
        return Ok(credential.password_hash)


async def _is_current(session: AsyncSession, actor: Actor, verified: str | None) -> bool:
    """Return whether the verified hash is still the account's, whose row is locked now."""
    if verified is None:
        return True
    credential = await session.get(CredentialRow, actor.user_id)
    return credential is not None and credential.password_hash == verified


async def _store(
    session: AsyncSession, row: UserRow, changes: dict[str, Any], *, verify: bool
) -> bool:
    """Write the row; return False if another account has the email."""
    if "display_name" in changes:
        row.display_name = changes["display_name"]
    email = changes.get("email")
    if email is not None:
        row.pending_email = email if verify and email != row.email else None
        if row.pending_email is None:
            row.email = email
        elif await _is_taken(session, email):
            return False
    touch(row)
    try:
        await session.flush()
    except IntegrityError:
        return False
    await session.refresh(row)
    return True


async def _is_taken(session: AsyncSession, email: str) -> bool:
    query = select(UserRow.id).where(col(UserRow.email) == email)
    return (await session.exec(query)).first() is not None


def _record(session: AsyncSession, actor: Actor, changes: dict[str, Any]) -> None:
    """Record which fields were changed, without their values."""
    details = changed(changes.keys() - {"current_password"})
    account = (ResourceType.USER, actor.user_id)
    record(session, actor, AuditAction.USER_CHANGED, account, details=details)


class DeletionRefusal(StrEnum):
    """Why an account was not deleted."""

    BY_KEY = "by_key"
    LAST_ADMINISTRATOR = "last_administrator"
    PASSWORD_MISSING = "password_missing"  # noqa: S105 -- a reason, not a secret
    PASSWORD_WRONG = "password_wrong"  # noqa: S105 -- as above


class UserDeletion:
    """Deletes accounts. Errors: DatabaseUnavailableError."""

    def __init__(
        self, database: Database, passwords: Passwords, invalidation: CacheInvalidation
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._invalidation = invalidation

    async def delete(
        self, actor: Actor, password: str | None, *, by_key: bool
    ) -> Result[DeletedTurns, DeletionRefusal | Unreachable]:
        """Delete the actor's account and its sign-ins, and return its turns.

        An account with a password is deleted only with it, and none by an API key: keys lie in
        programs, which have no say about the account.
        """
        if by_key:
            return Err(DeletionRefusal.BY_KEY)
        refusal = await self._unproven(actor, password)
        if refusal is not None:
            return Err(refusal)
        # Users may not delete their own row: only here is everything else cleaned up.
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
        await self._invalidation.publish(Invalidation(users=(actor.user_id,)))
        return Ok(deleted)

    async def _unproven(self, actor: Actor, password: str | None) -> DeletionRefusal | None:
        """Return why the password doesn't allow the deletion, or None if it does."""
        # Hashes are hidden from every actor but the service.
        async with self._database.transaction(SERVICE) as session:
            credential = await session.get(CredentialRow, actor.user_id)
        if credential is None:
            return None
        if password is None:
            return DeletionRefusal.PASSWORD_MISSING
        if not await self._passwords.verify(password, credential.password_hash):
            return DeletionRefusal.PASSWORD_WRONG
        return None


def _administers(user: UserRow) -> bool:
    return user.role == UserRole.ADMIN and user.status == UserStatus.ACTIVE


async def _locked(session: AsyncSession, actor: Actor) -> UserRow | None:
    """Return the present user, locked even against rows that refer to it."""
    query = select(UserRow).where(col(UserRow.id) == actor.user_id).with_for_update()
    return (await session.exec(query.execution_options(populate_existing=True))).first()


async def _delete(session: AsyncSession, actor: Actor) -> DeletedTurns:
    """Delete the rows, locked against new ones.

    A new chat waits for the lock of its user, a new turn for that of its chat: none appears
    between listing and deletion.
    """
    chats = select(ChatRow.id).where(col(ChatRow.user_id) == actor.user_id)
    await session.exec(chats.order_by(col(ChatRow.id)).with_for_update())
    turns = await ask_for_erasure(session, col(TurnRow.user_id) == actor.user_id)
    await close_identities(session, actor.user_id)
    await session.exec(delete(UserRow).where(col(UserRow.id) == actor.user_id))
    return turns
