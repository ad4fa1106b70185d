"""Accounts as every request needs them: role, status, plan; and the administrators among them.

A token names its bearer as of its issue. Their present rights come from the database and are
cached for seconds, or until they are invalidated (invalidation.py); workers receive no
invalidations.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.ids import UserId, new_id
from schema.plans import Entitlements
from schema.tables import CredentialRow, UserRow
from schema.tools import ApprovalPolicy, approval_policies
from schema.users import UserRole, UserStatus
from services.auth.credentials import Passwords
from services.auth.ttl_cache import AsyncTtlCache
from services.database import ActorGoneError, Database, GatheredReads

_MAX_CACHED: Final = 50_000

_ACCOUNTS: Final = """
SELECT users.id, users.role, users.status, users.email_verified OR NOT EXISTS (
           SELECT FROM credentials WHERE credentials.user_id = users.id
       ) AS is_verified, plans.id AS plan_id, plans.name AS plan_name,
       plans.entitlements, subscriptions.started_at, preferences.default_model,
       preferences.disabled_tools, preferences.tool_approvals
FROM users
LEFT JOIN preferences ON preferences.user_id = users.id
LEFT JOIN subscriptions ON subscriptions.user_id = users.id
JOIN plans ON plans.id = coalesce(
    subscriptions.plan_id, (SELECT id FROM plans WHERE is_default))
WHERE users.id = ANY($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Account:
    """A user's role, plan and preferences; `subscribed_at` is None on the default plan.

    `is_verified` if the user has shown that the email is theirs, or an external issuer says so.
    """

    role: UserRole
    is_verified: bool
    plan_id: UUID
    plan_name: str
    entitlements: Entitlements
    subscribed_at: datetime | None
    preferred_model: str | None
    disabled_tools: frozenset[str]
    tool_approvals: Mapping[str, ApprovalPolicy]


class AccountCache:
    """Looks up accounts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        reads = GatheredReads(self._read)
        self._cache = AsyncTtlCache(reads.get, max_size=_MAX_CACHED, lifetime_s=lifetime_s)

    async def get(self, user_id: UserId) -> Account | None:
        """Return the account of a user, or None if it is deleted or disabled."""
        return await self._cache.get(user_id)

    async def entitlements_of(self, user_id: UserId) -> Entitlements:
        """Return the entitlements of the user's plan. Errors: ActorGoneError."""
        account = await self.get(user_id)
        if account is None:
            raise ActorGoneError
        return account.entitlements

    def invalidate(self, user_id: UserId) -> None:
        """Read the account again at its next use in this process."""
        self._cache.invalidate(user_id)

    def invalidate_all(self) -> None:
        """Read each account again at its next use in this process."""
        self._cache.invalidate_all()

    async def _read(self, user_ids: Collection[UserId]) -> dict[UserId, Account]:
        async with self._database.statements(SERVICE) as connection:
            rows = await connection.fetch(_ACCOUNTS, user_ids)
        active = (row for row in rows if row["status"] == UserStatus.ACTIVE)
        return {UserId(row["id"]): _account(row) for row in active}


def _account(row: asyncpg.Record) -> Account:
    return Account(
        role=UserRole(row["role"]),
        is_verified=row["is_verified"],
        plan_id=row["plan_id"],
        plan_name=row["plan_name"],
        entitlements=Entitlements.model_validate(row["entitlements"]),
        subscribed_at=row["started_at"],
        preferred_model=row["default_model"],
        disabled_tools=frozenset(row["disabled_tools"] or ()),
        tool_approvals=approval_policies(row["tool_approvals"] or {}),
    )


async def ensure_administrator(
    database: Database, passwords: Passwords, *, email: str, password: str
) -> None:
    """Make the account an administrator's, and create it if it does not exist.

    An existing account keeps its password.
    Idempotency: a second call changes nothing.
    Errors: DatabaseUnavailableError.
    """
    password_hash = await passwords.hash(password)
    admin = insert(UserRow).values(
        id=new_id(), email=email, email_verified=True, role=UserRole.ADMIN.value, status="active"
    )
    upsert = admin.on_conflict_do_update(
        index_elements=["email"], set_={"role": UserRole.ADMIN.value}
    )
    async with database.transaction(SERVICE) as session:
        user_id = (await session.exec(upsert.returning(col(UserRow.id)))).scalar_one()
        credential = insert(CredentialRow).values(user_id=user_id, password_hash=password_hash)
        await session.exec(credential.on_conflict_do_nothing())


async def lock_administrators(session: AsyncSession) -> frozenset[UUID]:
    """Return the active administrators, locked until the transaction ends.

    All transactions lock them in the same order and before any other user, so none deadlocks. Of
    two administrators who take the role from each other, one finds it gone.
    """
    query = (
        select(UserRow.id)
        .where(col(UserRow.role) == UserRole.ADMIN, col(UserRow.status) == UserStatus.ACTIVE)
        .order_by(col(UserRow.id))
        .with_for_update(key_share=True)
    )
    return frozenset((await session.exec(query)).all())
