"""Owns accounts and sign-ins: signup, login, refresh with rotation, logout.

Works as the service: nobody is signed in yet.
"""

import hashlib
import secrets
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.ids import UserId, new_id
from schema.result import Err, Ok, Result
from schema.tables import CredentialRow, RefreshTokenRow, UserRow
from schema.tables.columns import utc_now
from schema.users import LogInRequest, Session, SignUpRequest, User, UserRole, UserStatus
from services.auth.passwords import Passwords
from services.auth.tokens import AccessTokens
from services.database import Database


class SignInRefusal(StrEnum):
    """Why somebody was not let in."""

    EMAIL_TAKEN = "email_taken"
    WRONG_CREDENTIALS = "wrong_credentials"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 -- a reason, not a secret


class AuthService:
    """Lets people in. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        tokens: AccessTokens,
        passwords: Passwords,
        *,
        refresh_lifetime: timedelta,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._passwords = passwords
        self._refresh_lifetime = refresh_lifetime

    async def sign_up(self, request: SignUpRequest) -> Result[Session, SignInRefusal]:
        """Make an account and sign it in."""
        password_hash = await self._passwords.hash(request.password)
        user = UserRow(id=new_id(), email=request.email.lower(), display_name=request.display_name)
        async with self._database.transaction(SERVICE) as session:
            if not await _insert_user(session, user):
                return Err(SignInRefusal.EMAIL_TAKEN)
            session.add(CredentialRow(user_id=user.id, password_hash=password_hash))
            return Ok(await self._open_session(session, user, family_id=new_id()))

    async def log_in(self, request: LogInRequest) -> Result[Session, SignInRefusal]:
        """Sign an account in by its password."""
        async with self._database.transaction(SERVICE) as session:
            found = await _user_with_hash(session, request.email.lower())
        user, password_hash = found if found is not None else (None, None)
        if not await self._passwords.verify(request.password, password_hash) or user is None:
            return Err(SignInRefusal.WRONG_CREDENTIALS)
        if user.status != UserStatus.ACTIVE:
            return Err(SignInRefusal.WRONG_CREDENTIALS)
        async with self._database.transaction(SERVICE) as session:
            return Ok(await self._open_session(session, user, family_id=new_id()))

    async def refresh(self, refresh_token: str) -> Result[Session, SignInRefusal]:
        """Exchange a refresh token for new tokens.

        A token that was used before is in two hands, one of them wrong: its whole family ends.
        """
        async with self._database.transaction(SERVICE) as session:
            token = await _find_token(session, refresh_token)
            if token is None or token.revoked_at is not None or token.expires_at <= utc_now():
                return Err(SignInRefusal.INVALID_TOKEN)
            if token.used_at is not None:
                await _end_family(session, token.family_id)
                return Err(SignInRefusal.INVALID_TOKEN)
            user = await session.get_one(UserRow, token.user_id)
            if user.status != UserStatus.ACTIVE:
                return Err(SignInRefusal.INVALID_TOKEN)
            token.used_at = utc_now()
            return Ok(await self._open_session(session, user, family_id=token.family_id))

    async def log_out(self, refresh_token: str) -> None:
        """End the family of the token; one that is not known is none to end."""
        async with self._database.transaction(SERVICE) as session:
            token = await _find_token(session, refresh_token)
            if token is not None:
                await _end_family(session, token.family_id)

    async def me(self, actor: Actor) -> User | None:
        """Return the actor's own account, or None once it is gone."""
        async with self._database.transaction(actor) as session:
            user = await session.get(UserRow, actor.user_id)
        return None if user is None else _user_from_row(user)

    async def _open_session(
        self, session: AsyncSession, user: UserRow, *, family_id: UUID
    ) -> Session:
        refresh_token = secrets.token_urlsafe(32)
        session.add(
            RefreshTokenRow(
                id=new_id(),
                user_id=user.id,
                family_id=family_id,
                token_hash=_digest(refresh_token),
                expires_at=utc_now() + self._refresh_lifetime,
            )
        )
        await session.flush()
        return Session(
            access_token=self._tokens.issue(UserId(user.id)),
            refresh_token=refresh_token,
            expires_in=int(self._tokens.lifetime.total_seconds()),
            user=_user_from_row(user),
        )


def _digest(refresh_token: str) -> bytes:
    """A random token of 256 bits needs no slow hash."""
    return hashlib.sha256(refresh_token.encode()).digest()


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


async def _find_token(session: AsyncSession, refresh_token: str) -> RefreshTokenRow | None:
    query = (
        select(RefreshTokenRow)
        .where(col(RefreshTokenRow.token_hash) == _digest(refresh_token))
        .with_for_update()
    )
    return (await session.exec(query)).first()


async def _end_family(session: AsyncSession, family_id: UUID) -> None:
    family = update(RefreshTokenRow).where(
        col(RefreshTokenRow.family_id) == family_id, col(RefreshTokenRow.revoked_at).is_(None)
    )
    await session.exec(family.values(revoked_at=utc_now()))


def _user_from_row(user: UserRow) -> User:
    return User(
        id=UserId(user.id),
        email=user.email,
        display_name=user.display_name,
        role=UserRole(user.role),
        created_at=user.created_at,
    )
