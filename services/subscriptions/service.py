"""Subscriptions: administrators assign plans, and users read their own."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Uuid, and_, bindparam, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.budgets import BudgetLimits, BudgetScope
from schema.ids import UserId
from schema.plans import Entitlements
from schema.result import Err, Ok, Result
from schema.subscriptions import (
    AssignPlanRequest,
    PlanAssignment,
    SubscribedPlan,
    Subscription,
)
from schema.tables import BudgetRow, PlanRow, SubscriptionRow, UserRow
from schema.tables.columns import utc_now
from services.audit import record
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.database import Connection, Database
from services.database.queries import CompiledQuery
from services.resources import Conflict, Versions, touch, version_matches
from services.subscriptions.periods import CALENDAR, period_at


class AssignmentRefusal(StrEnum):
    """Why a plan can't be assigned to a user."""

    UNKNOWN_USER = "unknown_user"
    UNKNOWN_PLAN = "unknown_plan"
    INACTIVE_PLAN = "inactive_plan"
    IN_THE_FUTURE = "in_the_future"


_IS_THEIRS: Final = and_(
    col(SubscriptionRow.plan_id) == col(PlanRow.id),
    col(SubscriptionRow.user_id) == bindparam("user_id", type_=Uuid),
)
_BUDGET_IS_THEIRS: Final = and_(
    col(BudgetRow.scope) == BudgetScope.USER,
    col(BudgetRow.subject_id) == bindparam("user_id", type_=Uuid),
)
_WITH_START: Final[Any] = select(
    PlanRow,
    SubscriptionRow.started_at,
    col(BudgetRow.version).label("budget_version"),
    col(BudgetRow.updated_at).label("budget_updated_at"),
    *(getattr(BudgetRow, name) for name in BudgetLimits.model_fields),
)
_TERMS: Final[CompiledQuery[Any]] = CompiledQuery(
    _WITH_START.outerjoin(SubscriptionRow, _IS_THEIRS)
    .outerjoin(BudgetRow, _BUDGET_IS_THEIRS)
    .where(or_(col(SubscriptionRow.user_id).is_not(None), col(PlanRow.is_default)))
    .order_by(col(SubscriptionRow.user_id).is_(None))
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class UserLimits:
    """Limits of spending that were set for one user."""

    limits: BudgetLimits
    version: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Terms:
    """The plan of a user, its start, and their budget of their own, if they have one.

    `anchor` is where their periods begin.
    """

    plan: SubscribedPlan
    since: datetime | None
    override: UserLimits | None = None

    @property
    def anchor(self) -> datetime:
        """Where periods begin: without a subscription, with the calendar's months."""
        return CALENDAR if self.since is None else self.since

    @property
    def limits(self) -> BudgetLimits:
        """The limits of spending that apply: the user's own replace all of the plan's."""
        return self.plan.entitlements if self.override is None else self.override.limits

    @property
    def entitlements(self) -> Entitlements:
        """The entitlements of the plan."""
        return self.plan.entitlements


class SubscriptionService:
    """Manages subscriptions. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, invalidation: CacheInvalidation) -> None:
        self._database = database
        self._invalidation = invalidation

    async def get(self, actor: Actor) -> Subscription:
        """Return the actor's plan and current period."""
        async with self._database.statements(actor) as connection:
            terms = await read_terms(connection, actor.user_id)
        return Subscription(
            plan=terms.plan,
            period=period_at(utc_now(), anchor=terms.anchor),
            since=terms.since,
        )

    async def assign(
        self, actor: Actor, user_id: UserId, request: AssignPlanRequest, *, versions: Versions
    ) -> Result[PlanAssignment, AssignmentRefusal | Conflict]:
        """Assign a plan to a user in place of their present one.

        An inactive plan keeps its subscribers and gets no new ones. Periods continue as they are
        unless the request sets their start.
        Idempotency: assigning the present plan changes nothing, not even the version.
        """
        if request.started_at is not None and request.started_at > utc_now():
            return Err(AssignmentRefusal.IN_THE_FUTURE)
        async with self._database.transaction(actor) as session:
            result = await _assign(session, actor, user_id, request, versions=versions)
        if isinstance(result, Ok):
            await self._invalidation.publish(Invalidation(users=(user_id,)))
        return result


async def read_terms(connection: Connection, user_id: UserId) -> Terms:
    """Return the plan of a user: their own, or the default one."""
    row: Any = await _TERMS.first(connection, user_id=user_id)
    override = None
    if row.budget_version is not None:
        override = UserLimits(limits_of(row), row.budget_version, row.budget_updated_at)
    return Terms(SubscribedPlan.model_validate(row), row.started_at, override)


def limits_of(row: Any) -> BudgetLimits:  # noqa: ANN401 -- a row of `budgets`, or with its columns
    """Return the limits of a row."""
    return BudgetLimits(**{name: getattr(row, name) for name in BudgetLimits.model_fields})


async def _assign(
    session: AsyncSession,
    actor: Actor,
    user_id: UserId,
    request: AssignPlanRequest,
    *,
    versions: Versions,
) -> Result[PlanAssignment, AssignmentRefusal | Conflict]:
    # The user's row is the lock, since there may be no subscription yet. This kind of lock does
    # not block rows that refer to the user.
    lock = {"key_share": True}
    if await session.get(UserRow, user_id, with_for_update=lock) is None:
        return Err(AssignmentRefusal.UNKNOWN_USER)
    held = await session.get(SubscriptionRow, user_id)
    if not version_matches(None if held is None else held.version, versions):
        return Err(Conflict.VERSION_CHANGED)
    # A shared lock, so that the plan can't be deactivated until the commit.
    plan = await session.get(PlanRow, request.plan_id, with_for_update={"read": True})
    if plan is None:
        return Err(AssignmentRefusal.UNKNOWN_PLAN)
    is_same = held is not None and held.plan_id == plan.id
    if not plan.active and not is_same:
        return Err(AssignmentRefusal.INACTIVE_PLAN)
    return Ok(await _store(session, actor, user_id, request, held=held))


async def _store(
    session: AsyncSession,
    actor: Actor,
    user_id: UserId,
    request: AssignPlanRequest,
    *,
    held: SubscriptionRow | None,
) -> PlanAssignment:
    earlier_plan = None if held is None else held.plan_id
    is_same = earlier_plan == request.plan_id
    started_at = request.started_at
    if started_at is None:
        # Usage of the current period keeps counting, whatever the plan.
        started_at = period_at(utc_now()).start if held is None else held.started_at
    if held is not None:
        if is_same and started_at == held.started_at:
            return PlanAssignment.model_validate(held)
        touch(held)
    row = held or SubscriptionRow(user_id=user_id, plan_id=request.plan_id)
    row.plan_id, row.started_at = request.plan_id, started_at
    session.add(row)
    record(
        session,
        actor,
        AuditAction.USER_PLAN_ASSIGNED,
        (ResourceType.USER, user_id),
        subject_id=user_id,
        details={
            "planId": str(request.plan_id),
            "earlierPlanId": None if earlier_plan is None else str(earlier_plan),
            "startedAt": started_at.isoformat(),
        },
    )
    await session.flush()
    return PlanAssignment.model_validate(row)
