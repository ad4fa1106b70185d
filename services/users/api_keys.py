"""API keys as their owners manage them: created, listed, revoked.

Works as the service: users may not read the table, whose rows authenticate. So each statement
names the owner.
"""

import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import BindParameter, Uuid, bindparam, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from schema.actors import SERVICE, Actor
from schema.api_keys import ApiKey, CreateApiKeyRequest, CreatedApiKey
from schema.audit import AuditAction, ResourceType
from schema.ids import ApiKeyId, new_id
from schema.pages import Page, PageRequest
from schema.permissions import BY_DEFAULT_OF_KEYS
from schema.result import Err, Ok, Result
from schema.tables import ApiKeyRow
from schema.tables.columns import utc_now
from services.audit import record
from services.auth.callers import Caller
from services.auth.credentials import API_KEY_PREFIX, hash_of_key
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import lock_user
from services.database import ActorGoneError, Database
from services.database.queries import CompiledQuery, Listing, Order
from services.resources import Conflict, LimitReached, Unreachable, create_once

T = TypeVar("T")

_NEWEST_FIRST: Final = Order("-createdAt", (col(ApiKeyRow.id),), descending=True)
_SHOWN_CHARACTERS: Final = 10
_MAX_LIFETIME: Final = timedelta(days=10 * 365)


def _valid_keys(
    query: SelectOfScalar[T], owner_id: UUID | BindParameter[UUID]
) -> SelectOfScalar[T]:
    theirs = query.where(col(ApiKeyRow.user_id) == owner_id)
    return theirs.where(col(ApiKeyRow.revoked_at).is_(None))


_OWN_KEYS: Final = _valid_keys(select(ApiKeyRow), bindparam("owner_id", type_=Uuid))
_KEYS: Final = Listing(_OWN_KEYS)
_KEY: Final = CompiledQuery(_OWN_KEYS.where(col(ApiKeyRow.id) == bindparam("key_id", type_=Uuid)))


class ApiKeyRefusal(StrEnum):
    """Why a key was not created."""

    BY_KEY = "by_key"
    MISSING_PERMISSION = "missing_permission"
    INVALID_EXPIRY = "invalid_expiry"


class ApiKeyService:
    """Manages the API keys of users. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, invalidation: CacheInvalidation) -> None:
        self._database = database
        self._invalidation = invalidation

    async def create(
        self, actor: Actor, request: CreateApiKeyRequest, *, caller: Caller, key: str | None
    ) -> Result[CreatedApiKey, ApiKeyRefusal | LimitReached | Conflict]:
        """Create a key, whose secret is returned once and never again.

        API keys can't create keys, which would stay valid after their creator is revoked.
        Errors: ActorGoneError.
        Idempotency: retrying with the same idempotency key and request returns the key created
        before, without its secret.
        """
        refusal = _refusal_of(request, caller)
        if refusal is not None:
            return Err(refusal)
        limit = caller.account.entitlements.max_api_keys
        secret = f"{API_KEY_PREFIX}{secrets.token_urlsafe(32)}"
        row = _new_row(actor, request, caller=caller, secret=secret)

        async def lock_owner(session: AsyncSession) -> Result[UUID, LimitReached]:
            # Concurrent requests for more keys wait here, so that none exceeds the limit.
            if await lock_user(session, actor.user_id) is None:
                raise ActorGoneError
            return Ok(row.id)

        async def create(session: AsyncSession) -> Result[CreatedApiKey, LimitReached]:
            if await _count(session, actor) >= limit:
                return Err(LimitReached(limit))
            session.add(row)
            record(session, actor, AuditAction.API_KEY_CREATED, (ResourceType.API_KEY, row.id))
            await session.flush()
            return Ok(_with_secret(row, secret))

        async def find(earlier: str) -> Result[CreatedApiKey, Unreachable]:
            found = await self._valid_key(actor, ApiKeyId(UUID(earlier)))
            return Err(Unreachable.MISSING) if found is None else Ok(_with_secret(found, None))

        return await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=lock_owner,
            create=create,
            find=find,
            work_as=SERVICE,
        )

    async def list_keys(self, actor: Actor, page: PageRequest) -> Page[ApiKey]:
        """Return the actor's keys that are not revoked, newest first.

        Errors: InvalidCursorError.
        """
        mine = {"owner_id": actor.user_id}
        async with self._database.statements(SERVICE) as connection:
            rows = await _KEYS.read(connection, page, _NEWEST_FIRST, mine)
        return rows.map(ApiKey.model_validate)

    async def get(self, actor: Actor, key_id: ApiKeyId) -> Result[ApiKey, Unreachable]:
        """Return one of the actor's keys; a revoked key is missing."""
        row = await self._valid_key(actor, key_id)
        if row is None:
            return Err(await self._why_unreachable(actor, key_id))
        return Ok(ApiKey.model_validate(row))

    async def revoke(self, actor: Actor, key_id: ApiKeyId) -> Result[None, Unreachable]:
        """Revoke a key; a revoked key is missing."""
        query = _valid_keys(select(ApiKeyRow), actor.user_id).where(col(ApiKeyRow.id) == key_id)
        async with self._database.transaction(SERVICE) as session:
            row = (await session.exec(query.with_for_update())).first()
            if row is not None:
                row.revoked_at = utc_now()
                record(session, actor, AuditAction.API_KEY_REVOKED, (ResourceType.API_KEY, key_id))
                await session.flush()
        if row is None:
            return Err(await self._why_unreachable(actor, key_id))
        await self._invalidation.publish(Invalidation(key_hashes=(row.key_hash,)))
        return Ok(None)

    async def _valid_key(self, actor: Actor, key_id: ApiKeyId) -> ApiKeyRow | None:
        async with self._database.statements(SERVICE) as connection:
            return await _KEY.first(connection, owner_id=actor.user_id, key_id=key_id)

    async def _why_unreachable(self, actor: Actor, key_id: ApiKeyId) -> Unreachable:
        """Return whether another user has this key; the actor's own revoked key is missing."""
        query = select(ApiKeyRow.user_id).where(col(ApiKeyRow.id) == key_id)
        async with self._database.transaction(SERVICE) as session:
            owner = (await session.exec(query)).first()
        return Unreachable.MISSING if owner in {None, actor.user_id} else Unreachable.FORBIDDEN


def _refusal_of(request: CreateApiKeyRequest, caller: Caller) -> ApiKeyRefusal | None:
    if caller.by_key:
        return ApiKeyRefusal.BY_KEY
    if not set(request.permissions or ()) <= caller.permissions:
        return ApiKeyRefusal.MISSING_PERMISSION
    if request.expires_at is not None and not _is_valid_expiry(request.expires_at):
        return ApiKeyRefusal.INVALID_EXPIRY
    return None


def _is_valid_expiry(expires_at: datetime) -> bool:
    """Return whether an expiry is in the future, and near enough not to overflow in UTC."""
    return utc_now() < expires_at < utc_now() + _MAX_LIFETIME


def _new_row(
    actor: Actor, request: CreateApiKeyRequest, *, caller: Caller, secret: str
) -> ApiKeyRow:
    permissions = request.permissions or (BY_DEFAULT_OF_KEYS & caller.permissions)
    return ApiKeyRow(
        id=new_id(),
        user_id=actor.user_id,
        name=request.name,
        start=secret[:_SHOWN_CHARACTERS],
        key_hash=hash_of_key(secret),
        permissions=sorted(set(permissions)),
        expires_at=request.expires_at,
    )


async def _count(session: AsyncSession, actor: Actor) -> int:
    """Return how many valid keys the actor has."""
    query = _valid_keys(select(func.count()).select_from(ApiKeyRow), actor.user_id).where(
        or_(col(ApiKeyRow.expires_at).is_(None), col(ApiKeyRow.expires_at) > utc_now())
    )
    return (await session.exec(query)).one()


def _with_secret(row: ApiKeyRow, secret: str | None) -> CreatedApiKey:
    return CreatedApiKey(**vars(ApiKey.model_validate(row)), key=secret)
