"""Owns letting people in: signup, login, refresh with rotation, logout.

Works as the service: nobody is signed in yet.
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
from schema.result import Err, Ok, Result
from schema.tables import CreationRow, CredentialRow, RefreshTokenRow, UserRow
from schema.tables.columns import utc_now
from schema.users import LogInRequest, Session, SignUpRequest, UserStatus
from services.audit.recording import record
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.passwords import Passwords
from services.auth.sessions import Sessions, end_family, find_token, lock_user
from services.database import Database
from services.resources import hash_of_request

_log = structlog.get_logger(__name__)


class SignInRefusal(StrEnum):
    """Why somebody was not let in."""

    EMAIL_TAKEN = "email_taken"
    KEY_REUSED = "key_reused"
    WRONG_CREDENTIALS = "wrong_credentials"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 -- a reason, not a secret


class AuthService:
    """Lets people in. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        passwords: Passwords,
        invalidation: CacheInvalidation,
    ) -> None:
        self._database = database
        self._invalidation = invalidation
        self._sessions = sessions
        self._passwords = passwords

    async def sign_up(
        self, request: SignUpRequest, *, key: str | None
    ) -> Result[Session, SignInRefusal]:
        """Make an account and sign it in.

        Idempotency: the same key with the same request signs the same account in again. A key
        counts for the e-mail address that it came with: nobody else can take it.
        """
        password_hash = await self._passwords.hash(request.password)
        user = UserRow(id=new_id(), email=request.email, display_name=request.display_name)
        async with self._database.transaction(SERVICE) as session:
            if await _insert_user(session, user):
                session.add(CredentialRow(user_id=user.id, password_hash=password_hash))
                if key is not None:
                    session.add(_creation(user.id, key, request))
                actor, account = acting_user(UserId(user.id)), (ResourceType.USER, user.id)
                record(session, actor, AuditAction.USER_SIGNED_UP, account)
                return Ok(await self._sessions.open(session, user))
        return await self._sign_up_again(request, key=key)

    async def _sign_up_again(
        self, request: SignUpRequest, *, key: str | None
    ) -> Result[Session, SignInRefusal]:
        """Sign in by a request that has made its account before.

        What is kept of it tells nothing of the password, so the account's own hash is asked.
        """
        if key is None:
            return Err(SignInRefusal.EMAIL_TAKEN)
        async with self._database.transaction(SERVICE) as session:
            found = await _user_with_hash(session, request.email)
            made = None if found is None else await session.get(CreationRow, (found[0].id, key))
        if found is None or made is None or made.resource_id != str(found[0].id):
            return Err(SignInRefusal.EMAIL_TAKEN)
        if made.request_hash != _hash(request):
            return Err(SignInRefusal.KEY_REUSED)
        entered = await self._enter(found, request.password)
        return entered if isinstance(entered, Ok) else Err(SignInRefusal.KEY_REUSED)

    async def log_in(self, request: LogInRequest) -> Result[Session, SignInRefusal]:
        """Sign an account in by its password."""
        async with self._database.transaction(SERVICE) as session:
            found = await _user_with_hash(session, request.email.lower())
        return await self._enter(found, request.password)

    async def _enter(
        self, found: tuple[UserRow, str] | None, password: str
    ) -> Result[Session, SignInRefusal]:
        """Begin a sign-in if the password is the account's, and the account may sign in.

        Hashing takes long, so no transaction waits for it; what may have changed meanwhile is
        looked at again.
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

    async def refresh(self, refresh_token: str) -> Result[Session, SignInRefusal]:
        """Exchange a refresh token for new tokens.

        A token that was used before is in two hands, one of them wrong: its whole family ends.
        """
        async with self._database.transaction(SERVICE) as session:
            found = await find_token(session, refresh_token)
            if found is None:
                return Err(SignInRefusal.INVALID_TOKEN)
            token, user = found
            if token.revoked_at is not None or token.expires_at <= utc_now():
                return Err(SignInRefusal.INVALID_TOKEN)
            if token.used_at is None:
                if user.status != UserStatus.ACTIVE:
                    return Err(SignInRefusal.INVALID_TOKEN)
                token.used_at = utc_now()
                return Ok(await self._sessions.open(session, user, family_id=token.family_id))
            await _end_reused(session, token)
        await self._invalidation.forget(Invalidation(sessions=(token.family_id,)))
        return Err(SignInRefusal.INVALID_TOKEN)

    async def log_out(self, refresh_token: str) -> None:
        """End the sign-in of the token, access tokens included; an unknown one is none to end."""
        async with self._database.transaction(SERVICE) as session:
            found = await find_token(session, refresh_token)
            if found is not None:
                await end_family(session, found[0].family_id)
        if found is not None:
            await self._invalidation.forget(Invalidation(sessions=(found[0].family_id,)))


def _refuse(session: AsyncSession, user_id: UUID | None, reason: str) -> Err[SignInRefusal]:
    """Note who was not let in, and why; whoever asks is not told."""
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
        user_id=user_id, key=key, request_hash=_hash(request), resource_id=str(user_id)
    )


def _hash(request: SignUpRequest) -> bytes:
    """Return what tells one request from another, without the password: it could be guessed."""
    return hash_of_request(type(request).__name__, request, without="password")


async def _insert_user(session: AsyncSession, user: UserRow) -> bool:
    made = insert(UserRow).values(user.model_dump()).on_conflict_do_nothing()
    inserted = await session.exec(made.returning(col(UserRow.id)))
    return inserted.first() is not None


async def _user_with_hash(session: AsyncSession, email: str) -> tuple[UserRow, str] | None:
    query = (
        select(UserRow, CredentialRow.password_hash)
        .where(col(CredentialRow.user_id) == col(UserRow.id))
        .where(col(UserRow.email) == email)
    )
    return (await session.exec(query)).first()
