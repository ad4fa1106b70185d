"""Owns sign-ins: each is a family of refresh tokens, of which one at a time is good.

Whoever begins or ends a family holds the lock of its user's row. Without it a family that is
ended could keep a token that is being made at the same moment.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.ids import UserId, new_id
from schema.tables import RefreshTokenRow, UserRow
from schema.tables.columns import utc_now
from schema.users import Session, User
from services.auth.tokens import AccessTokens


class Sessions:
    """Makes the tokens of sign-ins, within the transactions of others."""

    def __init__(self, tokens: AccessTokens, *, refresh_lifetime: timedelta) -> None:
        self._tokens = tokens
        self._refresh_lifetime = refresh_lifetime

    async def open(
        self, session: AsyncSession, user: UserRow, *, family_id: UUID | None = None
    ) -> Session:
        """Return new tokens, those of a new sign-in if no family is named."""
        refresh_token, family = secrets.token_urlsafe(32), family_id or new_id()
        session.add(
            RefreshTokenRow(
                id=new_id(),
                user_id=user.id,
                family_id=family,
                token_hash=_digest(refresh_token),
                expires_at=utc_now() + self._refresh_lifetime,
            )
        )
        await session.flush()
        return Session(
            access_token=self._tokens.issue(UserId(user.id), session_id=family),
            refresh_token=refresh_token,
            expires_in=int(self._tokens.lifetime.total_seconds()),
            user=User.model_validate(user, from_attributes=True),
        )


async def lock_user(session: AsyncSession, user_id: UUID) -> UserRow | None:
    """Return the user's row as it is now, locked against changes of who they are.

    The lock leaves alone what only refers to the row, as new chats do.
    """
    query = (
        select(UserRow)
        .where(col(UserRow.id) == user_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(query)).first()


async def find_token(
    session: AsyncSession, refresh_token: str
) -> tuple[RefreshTokenRow, UserRow] | None:
    """Return a refresh token and its user, whose row is locked; None if there is none."""
    query = select(RefreshTokenRow).where(col(RefreshTokenRow.token_hash) == _digest(refresh_token))
    token = (await session.exec(query)).first()
    user = None if token is None else await lock_user(session, token.user_id)
    if token is None or user is None:
        return None
    # It may have been used while the lock was waited for.
    await session.refresh(token)
    return token, user


async def end_family(session: AsyncSession, family_id: UUID) -> None:
    """End one sign-in."""
    await _revoke(session, col(RefreshTokenRow.family_id) == family_id)


async def end_sessions(
    session: AsyncSession, user_id: UUID, *, but: UUID | None = None
) -> frozenset[UUID]:
    """End all sign-ins of a user, but for one, and return those that did not end before."""
    which: list[Any] = [col(RefreshTokenRow.user_id) == user_id]
    if but is not None:
        which.append(col(RefreshTokenRow.family_id) != but)
    return await _revoke(session, *which)


async def _revoke(session: AsyncSession, *which: Any) -> frozenset[UUID]:  # noqa: ANN401 -- conditions of SQLAlchemy
    good = update(RefreshTokenRow).where(*which, col(RefreshTokenRow.revoked_at).is_(None))
    ended = good.values(revoked_at=utc_now()).returning(col(RefreshTokenRow.family_id))
    return frozenset((await session.exec(ended)).scalars())


def _digest(refresh_token: str) -> bytes:
    """A random token of 256 bits needs no slow hash."""
    return hashlib.sha256(refresh_token.encode()).digest()
