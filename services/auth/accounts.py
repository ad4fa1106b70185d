"""Owns what is known of users at every request: role, status, plan.

A token says who its bearer was when it was issued. What they may do now is asked of the database,
and remembered for moments, or until it is forgotten (invalidation.py): workers hear of no change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from schema.actors import SERVICE
from schema.ids import UserId
from schema.plans import Entitlements
from schema.tools import ApprovalPolicy, approval_policies
from schema.users import UserRole, UserStatus
from services.auth.ttl_cache import AsyncTtlCache
from services.database import ActorGoneError, Database

_REMEMBERED: Final = 50_000

_STANDING: Final = """
SELECT users.role, users.status, plans.id AS plan_id, plans.name AS plan_name,
       plans.entitlements, subscriptions.started_at, preferences.default_model,
       preferences.disabled_tools, preferences.tool_approvals
FROM users
LEFT JOIN preferences ON preferences.user_id = users.id
LEFT JOIN subscriptions ON subscriptions.user_id = users.id
JOIN plans ON plans.id = coalesce(
    subscriptions.plan_id, (SELECT id FROM plans WHERE is_default))
WHERE users.id = $1
"""


@dataclass(frozen=True, slots=True)
class Account:
    """What a user is, has and prefers; `subscribed_at` is null on the plan that everybody has."""

    role: UserRole
    plan_id: UUID
    plan_name: str
    entitlements: Entitlements
    subscribed_at: datetime | None
    preferred_model: str | None
    disabled_tools: frozenset[str]
    tool_approvals: Mapping[str, ApprovalPolicy]


class AccountCache:
    """Looks users up. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        self._known = AsyncTtlCache(self._read, most=_REMEMBERED, lifetime_s=lifetime_s)

    async def of(self, user_id: UserId) -> Account | None:
        """Return the account of a user, or None for one who is gone or disabled."""
        return await self._known.of(user_id)

    async def entitlements_of(self, user_id: UserId) -> Entitlements:
        """Return what the user's plan allows. Errors: ActorGoneError."""
        account = await self.of(user_id)
        if account is None:
            raise ActorGoneError
        return account.entitlements

    def forget(self, user_id: UserId) -> None:
        """Ask anew at the user's next request to this process."""
        self._known.forget(user_id)

    def forget_everybody(self) -> None:
        """Ask anew at the next request of each user to this process."""
        self._known.forget_all()

    async def _read(self, user_id: UserId) -> Account | None:
        async with self._database.statements(SERVICE) as connection:
            found = await connection.fetchrow(_STANDING, user_id)
        if found is None or found["status"] != UserStatus.ACTIVE:
            return None
        return Account(
            role=UserRole(found["role"]),
            plan_id=found["plan_id"],
            plan_name=found["plan_name"],
            entitlements=Entitlements.model_validate(found["entitlements"]),
            subscribed_at=found["started_at"],
            preferred_model=found["default_model"],
            disabled_tools=frozenset(found["disabled_tools"] or ()),
            tool_approvals=approval_policies(found["tool_approvals"] or {}),
        )
