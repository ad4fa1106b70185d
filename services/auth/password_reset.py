"""Password reset by a link that is sent to the account's email.

Works as the service: the caller is not authenticated. That a reset is asked for reveals nothing:
an account is looked up either way, and all that follows for a known one happens behind the answer.
"""

import asyncio
import hashlib
from datetime import timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import ANONYMOUS, SERVICE
from schema.audit import AuditAction, ResourceType
from schema.ids import UserId
from schema.mail import MAIL_LIFETIMES, MailKind, MailReference
from schema.result import Err, Ok, Result
from schema.tables import ApiKeyRow, CredentialRow, MailRow, UserRow
from schema.tables.columns import utc_now
from schema.users import ConfirmPasswordResetRequest, SentLink, UserStatus, email_as_signed_in
from services.audit import record
from services.auth.credentials import Passwords
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import end_sessions, lock_user
from services.database import Database, DatabaseUnavailableError
from services.mail.outbox import Outbox, find_link
from services.resources import touch

_log = structlog.get_logger(__name__)

_REPEATED: Final = timedelta(minutes=10)
"""How long a client whose answer was lost may repeat a reset that worked."""
_CLOSING_S: Final = 5.0


class ResetRefusal(StrEnum):
    """Why a password can't be reset."""

    NO_MAIL = "no_mail"
    INVALID_LINK = "invalid_link"


class _Link(NamedTuple):
    """A valid link, and the password that it replaces; `is_used` if it has replaced it."""

    mail: MailRow
    password_hash: str
    is_used: bool


class PasswordReset:
    """Resets passwords. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        invalidation: CacheInvalidation,
        outbox: Outbox,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._invalidation = invalidation
        self._outbox = outbox
        self._running: set[asyncio.Task[None]] = set()

    async def request(self, email: str) -> Result[SentLink, ResetRefusal]:
        """Send a link to the account with this email, if there is one with a password.

        The result and the time that it takes are the same for all emails.
        """
        if not self._outbox.is_open:
            return Err(ResetRefusal.NO_MAIL)
        query = select(UserRow.id).where(col(UserRow.email) == email_as_signed_in(email))
        async with self._database.transaction(SERVICE) as session:
            user_id = (await session.exec(query)).first()
        if user_id is not None:
            task = asyncio.create_task(self._send_link(user_id))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        lifetime = MAIL_LIFETIMES[MailKind.PASSWORD_RESET]
        return Ok(SentLink(email=email, expires_in=int(lifetime.total_seconds())))

    async def close(self) -> None:
        """Finish what was answered already."""
        if self._running:
            await asyncio.wait(self._running, timeout=_CLOSING_S)

    async def _send_link(self, user_id: UUID) -> None:
        try:
            async with self._database.transaction(SERVICE) as session:
                mail = await self._add_link(session, user_id)
        except DatabaseUnavailableError:
            _log.warning("password_reset_lost", user_id=str(user_id))
            return
        self._outbox.send(mail)

    async def _add_link(self, session: AsyncSession, user_id: UUID) -> MailReference | None:
        user = await lock_user(session, user_id)
        credential = await session.get(CredentialRow, user_id)
        if user is None or user.status != UserStatus.ACTIVE or credential is None:
            return None
        account = (ResourceType.USER, user_id)
        asked = AuditAction.USER_PASSWORD_RESET_REQUESTED
        record(session, ANONYMOUS, asked, account, subject_id=user_id)
        bound_to = _digest(credential.password_hash)
        return await self._outbox.add(session, MailKind.PASSWORD_RESET, user, bound_to=bound_to)

    async def confirm(self, request: ConfirmPasswordResetRequest) -> Result[None, ResetRefusal]:
        """Replace the password, and end all sign-ins; API keys are revoked if asked for.

        Hashing takes long, so no transaction waits for it, and only a valid link causes it.
        Idempotency: within ten minutes a repetition with the same password changes nothing.
        """
        async with self._database.transaction(SERVICE) as session:
            link = await _read_link(session, request.token)
        if link is None:
            return Err(ResetRefusal.INVALID_LINK)
        if link.is_used:
            is_same = await self._passwords.verify(request.password, link.password_hash)
            return Ok(None) if is_same else Err(ResetRefusal.INVALID_LINK)
        new_hash = await self._passwords.hash(request.password)
        async with self._database.transaction(SERVICE) as session:
            user = await lock_user(session, link.mail.user_id)
            # Another request may have used it while this one was hashing.
            link = await _read_link(session, request.token)
            if user is None or link is None or link.is_used:
                return Err(ResetRefusal.INVALID_LINK)
            stale = await _replace(session, user, link.mail, new_hash)
            if request.revoke_api_keys:
                keys = await _revoke_keys(session, user)
                stale = stale.model_copy(update={"key_hashes": keys})
            details = {"apiKeysRevoked": len(stale.key_hashes)}
            account, reset = (ResourceType.USER, user.id), AuditAction.USER_PASSWORD_RESET
            record(session, ANONYMOUS, reset, account, subject_id=user.id, details=details)
            notice = await self._outbox.add(session, MailKind.PASSWORD_CHANGED, user)
        await self._invalidation.publish(stale)
        self._outbox.send(notice)
        return Ok(None)


async def _read_link(session: AsyncSession, token: str) -> _Link | None:
    """Return what a token allows; None once the password, the email or the account has changed."""
    mail = await find_link(session, MailKind.PASSWORD_RESET, token)
    if mail is None:
        return None
    user = await session.get(UserRow, mail.user_id, populate_existing=True)
    credential = await session.get(CredentialRow, mail.user_id, populate_existing=True)
    if user is None or credential is None or user.email != mail.address:
        return None
    if user.status != UserStatus.ACTIVE:
        return None
    if mail.used_at is not None:
        is_repeated = utc_now() - mail.used_at <= _REPEATED
        return _Link(mail, credential.password_hash, is_used=True) if is_repeated else None
    if mail.bound_to != _digest(credential.password_hash):
        return None
    return _Link(mail, credential.password_hash, is_used=False)


async def _replace(
    session: AsyncSession, user: UserRow, mail: MailRow, new_hash: str
) -> Invalidation:
    """Store the password, end all sign-ins; who has the link has shown that the email is theirs."""
    credential = await session.get_one(CredentialRow, user.id)
    credential.password_hash, credential.updated_at = new_hash, utc_now()
    mail.used_at = utc_now()
    if not user.email_verified:
        user.email_verified = True
        touch(user)
    ended = await end_sessions(session, user.id)
    await session.flush()
    return Invalidation(users=(UserId(user.id),), sessions=tuple(ended))


async def _revoke_keys(session: AsyncSession, user: UserRow) -> tuple[bytes, ...]:
    valid = update(ApiKeyRow).where(
        col(ApiKeyRow.user_id) == user.id, col(ApiKeyRow.revoked_at).is_(None)
    )
    revoked = valid.values(revoked_at=utc_now()).returning(col(ApiKeyRow.key_hash))
    return tuple((await session.exec(revoked)).scalars())


def _digest(password_hash: str) -> bytes:
    """Return what a link is bound to: a salted hash needs no slow one."""
    return hashlib.sha256(password_hash.encode()).digest()
