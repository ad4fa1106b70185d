"""API keys as their owners manage them: created, with a budget or without, listed, revoked.

Works as the service: users may not read the table, whose rows authenticate. So each statement
names the owner.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import BindParameter, Uuid, bindparam, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from schema.actors import SERVICE, Actor
from schema.api_keys import ApiKey, CreateApiKeyRequest, CreatedApiKey
from schema.audit import AuditAction, ResourceType
from schema.budgets import ApiKeyBudget, BudgetLimits, BudgetScope
from schema.ids import ApiKeyId, new_id
from schema.pages import Page, PageRequest
from schema.permissions import BY_DEFAULT_OF_KEYS
from schema.result import Err, Ok, Result
from schema.tables import ApiKeyRow, BudgetRow
from schema.tables.columns import utc_now
from services.audit import record
from services.auth.callers import Caller
from services.auth.credentials import API_KEY_PREFIX, hash_of_key
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import lock_user
from services.database import ActorGoneError, Connection, Database
from services.database.queries import AttributeRow, CompiledQuery, Listing, Order
from services.resources import Conflict, LimitReached, Unreachable, create_once
from services.subscriptions.budget_use import read_spent
from services.subscriptions.periods import period_at
from services.subscriptions.service import limits_of, read_terms

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


_BUDGETS: Final = "SELECT * FROM budgets WHERE scope = 'api_key' AND subject_id = ANY($1)"


class _Created(NamedTuple):
    """A key that was created now, with its secret, or before."""

    id: ApiKeyId
    secret: str | None


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

        async def create(session: AsyncSession) -> Result[_Created, LimitReached]:
            if await _count(session, actor) >= limit:
                return Err(LimitReached(limit))
            session.add(row)
            record(session, actor, AuditAction.API_KEY_CREATED, (ResourceType.API_KEY, row.id))
            await session.flush()
            if request.budget is not None:
                session.add(_budget_row(row, request.budget))
                await session.flush()
            return Ok(_Created(ApiKeyId(row.id), secret))

        async def find(earlier: str) -> Result[_Created, Unreachable]:
            return Ok(_Created(ApiKeyId(UUID(earlier)), None))

        created = await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=lock_owner,
            create=create,
            find=find,
            work_as=SERVICE,
        )
        if isinstance(created, Err):
            return created
        stored = await self._valid_key(actor, created.value.id)
        if stored is None:
            return Err(Conflict.RESOURCE_DELETED)
        return Ok(CreatedApiKey(**vars(stored), key=created.value.secret))

    async def list_keys(self, actor: Actor, page: PageRequest) -> Page[ApiKey]:
        """Return the actor's keys that are not revoked, newest first.

        Errors: InvalidCursorError.
        """
        mine = {"owner_id": actor.user_id}
        async with self._database.statements(SERVICE) as connection:
            rows = await _KEYS.read(connection, page, _NEWEST_FIRST, mine)
            budgets = await _budgets(connection, actor, rows.items)
        return rows.map(lambda row: _shown(row, budgets))

    async def get(self, actor: Actor, key_id: ApiKeyId) -> Result[ApiKey, Unreachable]:
        """Return one of the actor's keys; a revoked key is missing."""
        key = await self._valid_key(actor, key_id)
        return Err(await self._why_unreachable(actor, key_id)) if key is None else Ok(key)

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

    async def _valid_key(self, actor: Actor, key_id: ApiKeyId) -> ApiKey | None:
        async with self._database.statements(SERVICE) as connection:
            row = await _KEY.first(connection, owner_id=actor.user_id, key_id=key_id)
            return None if row is None else _shown(row, await _budgets(connection, actor, [row]))

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


def _budget_row(key: ApiKeyRow, limits: BudgetLimits) -> BudgetRow:
    return BudgetRow(
        scope=BudgetScope.API_KEY.value, subject_id=key.id, user_id=key.user_id, **vars(limits)
    )


async def _budgets(
    connection: Connection, actor: Actor, keys: Sequence[ApiKeyRow]
) -> dict[UUID, ApiKeyBudget]:
    """Return the budgets of those keys that have one, and what they have spent."""
    rows = await connection.fetch(_BUDGETS, [key.id for key in keys], record_class=AttributeRow)
    if not rows:
        return {}
    terms = await read_terms(connection, actor.user_id)
    period = period_at(utc_now(), anchor=terms.anchor)
    subjects = [row["subject_id"] for row in rows]
    spent = await read_spent(connection, BudgetScope.API_KEY, subjects, period=period)
    budgets = {}
    for row in rows:
        limits = limits_of(row)
        use = spent[row["subject_id"]].against(limits)
        budgets[row["subject_id"]] = ApiKeyBudget(**vars(limits), **vars(use))
    return budgets


def _shown(row: ApiKeyRow, budgets: Mapping[UUID, ApiKeyBudget]) -> ApiKey:
    shown = {name: getattr(row, name) for name in ApiKey.model_fields if name != "budget"}
    return ApiKey(**shown, budget=budgets.get(row.id))
