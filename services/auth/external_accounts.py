"""Accounts of external identities, created when an identity signs in for the first time.

    AccountExistsError    another account has the email of the identity

An email alone proves nothing: if accounts were matched by email, anyone who gets an issuer to
vouch for an email would own the account.
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
from services.audit import record
from services.auth.issuers import ExternalIdentity, ExternalIssuers
from services.auth.ttl_cache import AsyncTtlCache
from services.database import Database
from services.database.connections import lock

_CLOSED_FOR: Final = timedelta(days=1)
"""How long a deleted account's identity can't get a new account: no token is valid for longer."""

_MAX_CACHED: Final = 10_000


class AccountExistsError(Exception):
    """Another account has the email of the identity."""

    def __init__(self) -> None:
        super().__init__(
            "An account with this email already exists and signs in another way. Sign in to it, "
            "or change its email."
        )


class ExternalAccounts:
    """Finds or creates the accounts of identities. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, issuers: ExternalIssuers, *, lifetime_s: float) -> None:
        self._database = database
        self._issuers = issuers
        self._cache = AsyncTtlCache(
            self._find_or_create, max_size=_MAX_CACHED, lifetime_s=lifetime_s
        )

    async def read(self, token: str) -> UserId | None:
        """Return the user of an external issuer's token, or None if it is invalid.

        Errors: IssuerUnavailableError; AccountExistsError.
        """
        identity = await self._issuers.read(token)
        return None if identity is None else await self._cache.get(identity)

    async def _find_or_create(self, identity: ExternalIdentity) -> UserId | None:
        async with self._database.transaction(SERVICE) as session:
            known = await session.get(IdentityRow, (identity.issuer, identity.subject))
        if known is not None:
            return UserId(known.user_id)
        async with self._database.transaction(SERVICE) as session:
            return await _create_once(session, identity)


async def _create_once(session: AsyncSession, identity: ExternalIdentity) -> UserId | None:
    """Create the account, unless another request just has, or it was just deleted.

    A deletion removes the identity and leaves its mark in one transaction: if the identity is
    gone, the mark is there, when looked for in this order.
    """
    identity_hash = _hash_of_identity(identity.issuer, identity.subject)
    await lock(session, "accounts", of=identity_hash.hex())
    known = await session.get(IdentityRow, (identity.issuer, identity.subject))
    if known is not None:
        return UserId(known.user_id)
    closed = await session.get(ClosedIdentityRow, identity_hash)
    if closed is not None and closed.closed_at > utc_now() - _CLOSED_FOR:
        return None
    return await _create(session, identity)


async def _create(session: AsyncSession, identity: ExternalIdentity) -> UserId:
    user = UserRow(
        id=new_id(),
        email=identity.email,
        email_verified=identity.email is not None,
        display_name=identity.name,
    )
    inserted = insert(UserRow).values(user.model_dump()).on_conflict_do_nothing()
    if (await session.exec(inserted.returning(col(UserRow.id)))).first() is None:
        raise AccountExistsError
    session.add(IdentityRow(issuer=identity.issuer, subject=identity.subject, user_id=user.id))
    user_id = UserId(user.id)
    account, details = (ResourceType.USER, user_id), {"issuer": identity.issuer}
    record(session, acting_user(user_id), AuditAction.USER_SIGNED_UP, account, details=details)
    await session.flush()
    return user_id


async def close_identities(session: AsyncSession, user_id: UserId) -> None:
    """Keep the identities of a deleted account from getting another one at once."""
    expired = col(ClosedIdentityRow.closed_at) < utc_now() - _CLOSED_FOR
    await session.exec(delete(ClosedIdentityRow).where(expired))
    query = select(IdentityRow).where(col(IdentityRow.user_id) == user_id)
    for identity in (await session.exec(query)).all():
        closed = ClosedIdentityRow(
            identity_hash=_hash_of_identity(identity.issuer, identity.subject)
        )
        await session.merge(closed)


def _hash_of_identity(issuer: str, subject: str) -> bytes:
    """Return the stored hash of an identity whose account is deleted."""
    return hashlib.sha256(json.dumps([issuer, subject]).encode()).digest()
