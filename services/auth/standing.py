"""Owns what is known of users at every request: role, status, plan.

A token says who its bearer was when it was issued. What they may do now is asked of the database,
and remembered for moments only: a user who is disabled is out within them, on every process.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from cachetools import TTLCache

from schema.actors import SERVICE
from schema.ids import UserId
from schema.plans import Entitlements
from schema.users import UserRole, UserStatus
from services.database import ActorGoneError, Database

_REMEMBERED: Final = 50_000

_STANDING: Final = """
SELECT users.role, users.status, plans.id AS plan_id, plans.name AS plan_name,
       plans.entitlements, subscriptions.started_at, preferences.default_model
FROM users
LEFT JOIN preferences ON preferences.user_id = users.id
LEFT JOIN subscriptions ON subscriptions.user_id = users.id
JOIN plans ON plans.id = coalesce(
    subscriptions.plan_id, (SELECT id FROM plans WHERE is_default))
WHERE users.id = $1
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user is, has and prefers; `subscribed_at` is null on the plan that everybody has."""

    role: UserRole
    plan_id: UUID
    plan_name: str
    entitlements: Entitlements
    subscribed_at: datetime | None
    preferred_model: str | None


class Standings:
    """Looks users up. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        self._known: TTLCache[UserId, Standing] = TTLCache(_REMEMBERED, lifetime_s)
        self._times_forgotten = 0

    async def of(self, user_id: UserId) -> Standing | None:
        """Return the standing of a user, or None for one who is gone or disabled."""
        known = self._known.get(user_id)
        if known is not None:
            return known
        times_forgotten = self._times_forgotten
        async with self._database.statements(SERVICE) as connection:
            found = await connection.fetchrow(_STANDING, user_id)
        if found is None or found["status"] != UserStatus.ACTIVE:
            return None
        standing = Standing(
            role=UserRole(found["role"]),
            plan_id=found["plan_id"],
            plan_name=found["plan_name"],
            entitlements=Entitlements.model_validate(found["entitlements"]),
            subscribed_at=found["started_at"],
            preferred_model=found["default_model"],
        )
        # What was read before a change is not remembered after it.
        if times_forgotten == self._times_forgotten:
            self._known[user_id] = standing
        return standing

    async def entitlements_of(self, user_id: UserId) -> Entitlements:
        """Return what the user's plan allows. Errors: ActorGoneError."""
        standing = await self.of(user_id)
        if standing is None:
            raise ActorGoneError
        return standing.entitlements

    def forget(self, user_id: UserId) -> None:
        """Ask anew at the user's next request to this process."""
        self._times_forgotten += 1
        self._known.pop(user_id, None)

    def forget_everybody(self) -> None:
        """Ask anew at the next request of each user to this process."""
        self._times_forgotten += 1
        self._known.clear()
