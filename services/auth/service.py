"""Sign-up, sign-in with a password, refresh with rotation, sign-out.

Works as the service: the caller is not authenticated yet.
"""

from enum import StrEnum
from uuid import UUID

import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import ANONYMOUS, SERVICE, acting_user
from schema.audit import AuditAction, ResourceType
from schema.ids import UserId, new_id
from schema.mail import MailKind, MailReference
from schema.result import Err, Ok, Result
from schema.tables import CreationRow, CredentialRow, RefreshTokenRow, UserRow
from schema.tables.columns import utc_now
from schema.users import (
    LogInRequest,
    Session,
    SignUpRequest,
    UserStatus,
    email_as_signed_in,
)
from services.audit import record
from services.auth.credentials import Passwords
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import Sessions, end_family, find_token, lock_user
from services.database import Database
from services.mail.outbox import Outbox
from services.resources import Fingerprint

_log = structlog.get_logger(__name__)


class SignInRefusal(StrEnum):
    """Why a sign-up or sign-in was refused."""

    SIGN_UP_CLOSED = "sign_up_closed"
    EMAIL_TAKEN = "email_taken"
    KEY_REUSED = "key_reused"
    WRONG_CREDENTIALS = "wrong_credentials"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 -- a reason, not a secret


class AuthService:
    """Signs users up, in and out; up only if `sign_up_open`. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        passwords: Passwords,
        invalidation: CacheInvalidation,
        *,
        outbox: Outbox,
        sign_up_open: bool = True,
    ) -> None:
        self._database = database
        self._invalidation = invalidation
        self._sessions = sessions
        self._passwords = passwords
        self._outbox = outbox
        self._sign_up_open = sign_up_open

    async def sign_up(
        self, request: SignUpRequest, *, key: str | None
    ) -> Result[Session, SignInRefusal]:
        """Create an account and sign it in; the link that verifies its email is sent.

        Idempotency: retrying with the same key and request signs the same account in again. A key
        belongs to the email that it came with, so that no other account can use it up.
        """
        if not self._sign_up_open:
            return Err(SignInRefusal.SIGN_UP_CLOSED)
        password_hash = await self._passwords.hash(request.password)
        user = UserRow(id=new_id(), email=request.email, display_name=request.display_name)
        signed_in: Session | None = None
        verification: MailReference | None = None
        async with self._database.transaction(SERVICE) as session:
            if await _insert_user(session, user):
                session.add(CredentialRow(user_id=user.id, password_hash=password_hash))
                if key is not None:
                    session.add(_creation(user.id, key, request))
                actor, account = acting_user(UserId(user.id)), (ResourceType.USER, user.id)
                record(session, actor, AuditAction.USER_SIGNED_UP, account)
                verification = await self._outbox.add(session, MailKind.EMAIL_VERIFICATION, user)
                signed_in = await self._sessions.open(session, user)
        if signed_in is None:
            return await self._sign_up_again(request, key=key)
        self._outbox.send(verification)
        return Ok(signed_in)

    async def _sign_up_again(
        self, request: SignUpRequest, *, key: str | None
    ) -> Result[Session, SignInRefusal]:
        """Sign in by a retry of the request that created the account.

        The stored hash of the request leaves out the password, so the account's own hash decides.
        """
        if key is None:
            return Err(SignInRefusal.EMAIL_TAKEN)
        async with self._database.transaction(SERVICE) as session:
            found = await _user_with_hash(session, request.email)
            creation = None if found is None else await session.get(CreationRow, (found[0].id, key))
        if found is None or creation is None or creation.resource_id != str(found[0].id):
            return Err(SignInRefusal.EMAIL_TAKEN)
        if not _fingerprint(request).matches(creation.request_hash):
            return Err(SignInRefusal.KEY_REUSED)
        signed_in = await self._sign_in(found, request.password)
        return signed_in if isinstance(signed_in, Ok) else Err(SignInRefusal.KEY_REUSED)

    async def log_in(self, request: LogInRequest) -> Result[Session, SignInRefusal]:
        """Sign in to an account with its password."""
        async with self._database.transaction(SERVICE) as session:
            found = await _user_with_hash(session, email_as_signed_in(request.email))
        return await self._sign_in(found, request.password)

    async def _sign_in(
        self, found: tuple[UserRow, str] | None, password: str
    ) -> Result[Session, SignInRefusal]:
        """Start a sign-in if the password is right and the account is active.

        Hashing takes long, so no transaction waits for it; what may have changed since is checked
        again.
        """
        user, password_hash = found if found is not None else (None, None)
        is_right = await self._passwords.verify(password, password_hash)
        async with self._database.transaction(SERVICE) as session:
            if user is None:
                return _refuse(session, None, "unknown_address")
            current = await lock_user(session, user.id)
            stored = await session.get(CredentialRow, user.id)
            if current is None or stored is None or stored.password_hash != password_hash:
                is_right = False
            if current is None or not is_right:
                return _refuse(session, user.id, "wrong_password")
            if current.status != UserStatus.ACTIVE:
                return _refuse(session, user.id, "disabled")
            account = (ResourceType.USER, user.id)
            record(session, acting_user(UserId(user.id)), AuditAction.USER_SIGNED_IN, account)
            return Ok(await self._sessions.open(session, current))

    async def refresh(self, refresh_token: str, *, client: bytes) -> Result[Session, SignInRefusal]:
        """Exchange a refresh token for new tokens; `client` is a hash of who sends it.

        A token that was copied ends its whole family.
        """
        async with self._database.transaction(SERVICE) as session:
            found = await find_token(session, refresh_token)
            if found is None:
                return Err(SignInRefusal.INVALID_TOKEN)
            token, user = found
            if token.revoked_at is not None or token.expires_at <= utc_now():
                return Err(SignInRefusal.INVALID_TOKEN)
            if user.status != UserStatus.ACTIVE:
                return Err(SignInRefusal.INVALID_TOKEN)
            rotated = await self._sessions.rotate(
                session, token, user, refresh_token=refresh_token, client=client
            )
            if rotated is not None:
                return Ok(rotated)
            await _end_reused(session, token)
        await self._invalidation.publish(Invalidation(sessions=(token.family_id,)))
        return Err(SignInRefusal.INVALID_TOKEN)

    async def log_out(self, refresh_token: str) -> None:
        """End the sign-in of the token, access tokens included; ignore an unknown token."""
        async with self._database.transaction(SERVICE) as session:
            found = await find_token(session, refresh_token)
            if found is not None:
                await end_family(session, found[0].family_id)
        if found is not None:
            await self._invalidation.publish(Invalidation(sessions=(found[0].family_id,)))


def _refuse(session: AsyncSession, user_id: UUID | None, reason: str) -> Err[SignInRefusal]:
    """Record the account and the reason, which the response does not reveal."""
    record(
        session,
        ANONYMOUS,
        AuditAction.USER_SIGN_IN_REFUSED,
        (ResourceType.USER, user_id),
        subject_id=user_id,
        details={"reason": reason},
    )
    return Err(SignInRefusal.WRONG_CREDENTIALS)


async def _end_reused(session: AsyncSession, token: RefreshTokenRow) -> None:
    await end_family(session, token.family_id)
    _log.warning("refresh_token_reused", user_id=str(token.user_id), family=str(token.family_id))
    record(
        session,
        ANONYMOUS,
        AuditAction.USER_TOKEN_REUSED,
        (ResourceType.USER, token.user_id),
        subject_id=token.user_id,
        details={"family": str(token.family_id)},
    )


def _creation(user_id: UUID, key: str, request: SignUpRequest) -> CreationRow:
    return CreationRow(
        user_id=user_id,
        key=key,
        request_hash=_fingerprint(request).hash,
        resource_id=str(user_id),
    )


def _fingerprint(request: SignUpRequest) -> Fingerprint:
    """Return that of a request without its password, which could be guessed from a hash."""
    return Fingerprint(type(request).__name__, request, without="password")


async def _insert_user(session: AsyncSession, user: UserRow) -> bool:
    insertion = insert(UserRow).values(user.model_dump()).on_conflict_do_nothing()
    inserted = await session.exec(insertion.returning(col(UserRow.id)))
    return inserted.first() is not None


async def _user_with_hash(session: AsyncSession, email: str) -> tuple[UserRow, str] | None:
    query = (
        select(UserRow, CredentialRow.password_hash)
        .where(col(CredentialRow.user_id) == col(UserRow.id))
        .where(col(UserRow.email) == email)
    )
    return (await session.exec(query)).first()
