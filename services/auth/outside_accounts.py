"""Owns which account an outside identity has; the first time that it is seen, it gets one.

    AccountExistsError    another account has the e-mail address of the identity

An address alone proves nothing: were accounts joined by it, whoever gets an issuer to vouch for
an address would own the account.
"""

import hashlib
import json
from datetime import timedelta
from typing import Final

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, acting_user
from schema.audit import AuditAction, ResourceType
from schema.ids import UserId, new_id
from schema.tables import ClosedIdentityRow, IdentityRow, UserRow
from schema.tables.columns import utc_now
from services.audit.recording import record
from services.auth.issuers import OutsideIdentity, OutsideIssuers
from services.auth.ttl_cache import AsyncTtlCache
from services.database import Database
from services.database.connections import lock

_CLOSED_FOR: Final = timedelta(days=1)
"""How long an identity whose account was deleted gets no other: no token is good for longer."""

_REMEMBERED: Final = 10_000


class AccountExistsError(Exception):
    """An account that is not the identity's has its e-mail address."""

    def __init__(self) -> None:
        super().__init__(
            "There is an account with the e-mail address of this token already, which signs in "
            "another way. Sign in to that one, or give it another e-mail address."
        )


class OutsideAccounts:
    """Finds and makes the accounts of outside identities. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, issuers: OutsideIssuers, *, lifetime_s: float) -> None:
        self._database = database
        self._issuers = issuers
        self._known = AsyncTtlCache(self._find_or_make, most=_REMEMBERED, lifetime_s=lifetime_s)

    async def read(self, token: str) -> UserId | None:
        """Return whom a token of an outside issuer speaks for, or None if it is no good.

        Errors: IssuerUnavailableError; AccountExistsError.
        """
        identity = await self._issuers.read(token)
        return None if identity is None else await self._known.of(identity)

    async def _find_or_make(self, identity: OutsideIdentity) -> UserId | None:
        async with self._database.transaction(SERVICE) as session:
            known = await session.get(IdentityRow, (identity.issuer, identity.subject))
        if known is not None:
            return UserId(known.user_id)
        async with self._database.transaction(SERVICE) as session:
            return await _make_once(session, identity)


async def _make_once(session: AsyncSession, identity: OutsideIdentity) -> UserId | None:
    """Make the account, unless another request has just made it, or it has just been deleted.

    A deletion takes the identity and leaves its mark in one transaction: whoever finds the
    first gone finds the second there, if they look in this order.
    """
    identity_hash = hash_of(identity.issuer, identity.subject)
    await lock(session, "accounts", of=identity_hash.hex())
    known = await session.get(IdentityRow, (identity.issuer, identity.subject))
    if known is not None:
        return UserId(known.user_id)
    closed = await session.get(ClosedIdentityRow, identity_hash)
    if closed is not None and closed.closed_at > utc_now() - _CLOSED_FOR:
        return None
    return await _make(session, identity)


async def _make(session: AsyncSession, identity: OutsideIdentity) -> UserId:
    user = UserRow(id=new_id(), email=identity.email, display_name=identity.name)
    made = insert(UserRow).values(user.model_dump()).on_conflict_do_nothing()
    if (await session.exec(made.returning(col(UserRow.id)))).first() is None:
        raise AccountExistsError
    session.add(IdentityRow(issuer=identity.issuer, subject=identity.subject, user_id=user.id))
    user_id = UserId(user.id)
    account, details = (ResourceType.USER, user_id), {"issuer": identity.issuer}
    record(session, acting_user(user_id), AuditAction.USER_SIGNED_UP, account, details=details)
    await session.flush()
    return user_id


async def close_identities(session: AsyncSession, user_id: UserId) -> None:
    """Keep the identities of an account that is being deleted from getting another at once."""
    over = col(ClosedIdentityRow.closed_at) < utc_now() - _CLOSED_FOR
    await session.exec(delete(ClosedIdentityRow).where(over))
    query = select(IdentityRow).where(col(IdentityRow.user_id) == user_id)
    for identity in (await session.exec(query)).all():
        closed = ClosedIdentityRow(identity_hash=hash_of(identity.issuer, identity.subject))
        await session.merge(closed)


def hash_of(issuer: str, subject: str) -> bytes:
    """Return what is kept of an identity whose account is gone."""
    return hashlib.sha256(json.dumps([issuer, subject]).encode()).digest()
