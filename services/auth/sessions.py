"""Sign-ins: each is a family of refresh tokens, of which one at a time is valid.

A client that sends one token twice in a moment, as two tabs do that refresh at once, gets the same
next token both times: the family still has one valid token, so a copied one is still found out.

A transaction that begins or ends a family holds the lock of its user's row. Without it a family
could keep a token that is created while the family is being ended.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.ids import UserId, new_id
from schema.tables import RefreshTokenRow, UserRow
from schema.tables.columns import utc_now
from schema.users import Session, User
from services.audit import current_origin
from services.auth.credentials import AccessTokens
from services.auth.ttl_cache import AsyncTtlCache
from services.database import Database, GatheredReads

_MAX_CACHED: Final = 50_000

REFRESH_GRACE: Final = timedelta(seconds=10)
"""How long a client may send a used refresh token again, and gets the same answer."""

_BROWSERS: Final = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
"""What browsers are recognized by; those that also name another stand before it."""
_SYSTEMS: Final = {
    "Windows": "Windows",
    "Android": "Android",
    "iPhone": "iOS",
    "iPad": "iPadOS",
    "CrOS": "ChromeOS",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}
_PROGRAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,40}(/[A-Za-z0-9._+-]{1,20})?")

_ACTIVE: Final = """
SELECT DISTINCT family_id FROM refresh_tokens
WHERE family_id = ANY($1::uuid[]) AND revoked_at IS NULL AND expires_at > now()
"""


class Sessions:
    """Creates the tokens of sign-ins, within the transaction of the caller."""

    def __init__(self, tokens: AccessTokens, *, secret: str, refresh_lifetime: timedelta) -> None:
        self._tokens = tokens
        self._secret = secret.encode()
        self._refresh_lifetime = refresh_lifetime

    async def open(self, session: AsyncSession, user: UserRow) -> Session:
        """Return the tokens of a new sign-in."""
        return await self._issue(session, user, new_id(), secrets.token_urlsafe(32))

    async def rotate(
        self,
        session: AsyncSession,
        token: RefreshTokenRow,
        user: UserRow,
        *,
        refresh_token: str,
        client: bytes,
    ) -> Session | None:
        """Use a refresh token; return the next tokens, or None if it was copied.

        It was copied if another client used it, or if it comes again late, or behind its successor.
        """
        successor = self._successor(refresh_token)
        if token.used_at is None:
            token.used_at, token.used_by = utc_now(), client
            return await self._issue(session, user, token.family_id, successor)
        is_repeated = token.used_by == client and utc_now() - token.used_at <= REFRESH_GRACE
        unused = (
            select(RefreshTokenRow.id)
            .where(col(RefreshTokenRow.token_hash) == _digest(successor))
            .where(col(RefreshTokenRow.used_at).is_(None))
        )
        if not is_repeated or (await session.exec(unused)).first() is None:
            return None
        return self._tokens_of(user, token.family_id, successor)

    def _successor(self, refresh_token: str) -> str:
        """Return the token that follows: always the same, so that it need not be kept readable."""
        digest = hmac.digest(self._secret, b"refresh:" + refresh_token.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    async def _issue(
        self, session: AsyncSession, user: UserRow, family: UUID, refresh_token: str
    ) -> Session:
        origin = current_origin()
        session.add(
            RefreshTokenRow(
                id=new_id(),
                user_id=user.id,
                family_id=family,
                token_hash=_digest(refresh_token),
                expires_at=utc_now() + self._refresh_lifetime,
                user_agent=client_name(origin.user_agent),
                network=origin.network,
            )
        )
        await session.flush()
        return self._tokens_of(user, family, refresh_token)

    def _tokens_of(self, user: UserRow, family: UUID, refresh_token: str) -> Session:
        return Session(
            access_token=self._tokens.issue(UserId(user.id), session_id=family),
            refresh_token=refresh_token,
            expires_in=int(self._tokens.lifetime.total_seconds()),
            user=User.model_validate(user),
        )


def client_name(user_agent: str | None) -> str | None:
    """Return what its user may recognize a client by, e.g. `Firefox on Linux`, `curl/8.5.0`.

    The rest of the header is not kept: it tells one person's device from those of others.
    """
    given = user_agent or ""
    if not given.startswith("Mozilla/"):
        program = _PROGRAM.match(given)
        return None if program is None else program[0]
    browser = next((name for mark, name in _BROWSERS.items() if mark in given), "Browser")
    system = next((name for mark, name in _SYSTEMS.items() if mark in given), None)
    return browser if system is None else f"{browser} on {system}"


async def lock_user(session: AsyncSession, user_id: UUID) -> UserRow | None:
    """Return the user's present row, locked against changes.

    The lock does not block rows that refer to it, such as new chats.
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
    """Return a refresh token and its user, whose row is locked; None for an unknown token."""
    query = select(RefreshTokenRow).where(col(RefreshTokenRow.token_hash) == _digest(refresh_token))
    token = (await session.exec(query)).first()
    user = None if token is None else await lock_user(session, token.user_id)
    if token is None or user is None:
        return None
    # It may have been used while this waited for the lock.
    await session.refresh(token)
    return token, user


async def end_family(session: AsyncSession, family_id: UUID) -> None:
    """End one sign-in."""
    await _revoke(session, col(RefreshTokenRow.family_id) == family_id)


async def end_session(session: AsyncSession, user_id: UUID, family_id: UUID) -> bool:
    """End a sign-in of a user; False if it is none of theirs that is still active."""
    theirs = (col(RefreshTokenRow.user_id) == user_id, col(RefreshTokenRow.family_id) == family_id)
    return bool(await _revoke(session, *theirs, col(RefreshTokenRow.expires_at) > utc_now()))


async def end_sessions(
    session: AsyncSession, user_id: UUID, *, but: UUID | None = None
) -> frozenset[UUID]:
    """End all sign-ins of a user except `but`, and return those that were still active."""
    which: list[Any] = [col(RefreshTokenRow.user_id) == user_id]
    if but is not None:
        which.append(col(RefreshTokenRow.family_id) != but)
    return await _revoke(session, *which)


async def _revoke(session: AsyncSession, *which: Any) -> frozenset[UUID]:  # noqa: ANN401 -- conditions of SQLAlchemy
    valid = update(RefreshTokenRow).where(*which, col(RefreshTokenRow.revoked_at).is_(None))
    ended = valid.values(revoked_at=utc_now()).returning(col(RefreshTokenRow.family_id))
    return frozenset((await session.exec(ended)).scalars())


def _digest(refresh_token: str) -> bytes:
    """A random token of 256 bits needs no slow hash."""
    return hashlib.sha256(refresh_token.encode()).digest()


class LiveSessions:
    """Looks up sign-ins, cached like accounts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        reads = GatheredReads(self._read)
        self._live = AsyncTtlCache(reads.get, max_size=_MAX_CACHED, lifetime_s=lifetime_s)

    async def is_active(self, session_id: UUID) -> bool:
        """Return whether a sign-in has not ended."""
        return await self._live.get(session_id) is not None

    def invalidate(self, session_id: UUID) -> None:
        """Read the sign-in again at its next use in this process."""
        self._live.invalidate(session_id)

    def invalidate_all(self) -> None:
        """Read each sign-in again at its next use in this process."""
        self._live.invalidate_all()

    async def _read(self, session_ids: Collection[UUID]) -> dict[UUID, Literal[True]]:
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(_ACTIVE, session_ids)
        return {row["family_id"]: True for row in rows}
