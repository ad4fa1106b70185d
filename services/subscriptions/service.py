"""Owns who has which plan: given by administrators, read by everybody for themselves."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Uuid, and_, bindparam, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import UserId
from schema.plans import Entitlements
from schema.result import Err, Ok, Result
from schema.subscriptions import AssignPlanRequest, PlanAssignment, Subscription
from schema.tables import PlanRow, SubscriptionRow, UserRow
from schema.tables.columns import utc_now
from services.audit.recording import record
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.database import Database
from services.resources import Conflict, Versions, is_meant, touch
from services.subscriptions.periods import CALENDAR, period_at
from services.subscriptions.rows import assignment_from_row, subscribed_plan_from_row


class AssignmentRefusal(StrEnum):
    """Why a plan can't be given to a user."""

    NO_SUCH_USER = "no_such_user"
    NO_SUCH_PLAN = "no_such_plan"
    INACTIVE_PLAN = "inactive_plan"
    IN_THE_FUTURE = "in_the_future"


_IS_THEIRS: Final = and_(
    col(SubscriptionRow.plan_id) == col(PlanRow.id),
    col(SubscriptionRow.user_id) == bindparam("user_id", type_=Uuid),
)
_TERMS: Final = (
    select(PlanRow, SubscriptionRow.started_at)
    .outerjoin(SubscriptionRow, _IS_THEIRS)
    .where(or_(col(SubscriptionRow.user_id).is_not(None), col(PlanRow.is_default)))
    .order_by(col(SubscriptionRow.user_id).is_(None))
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a user has and since when; `anchor` is where their periods begin."""

    plan: PlanRow
    since: datetime | None

    @property
    def anchor(self) -> datetime:
        """Where periods begin: those without a subscription have the calendar's."""
        return CALENDAR if self.since is None else self.since

    @property
    def entitlements(self) -> Entitlements:
        """What the plan allows."""
        return Entitlements.model_validate(self.plan.entitlements)


class SubscriptionService:
    """Keeps subscriptions. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, invalidation: CacheInvalidation) -> None:
        self._database = database
        self._invalidation = invalidation

    async def get(self, actor: Actor) -> Subscription:
        """Return the actor's plan, and the period that is running."""
        async with self._database.transaction(actor) as session:
            terms = await read_terms(session, actor.user_id)
        return Subscription(
            plan=subscribed_plan_from_row(terms.plan),
            period=period_at(utc_now(), anchor=terms.anchor),
            since=terms.since,
        )

    async def assign(
        self, actor: Actor, user_id: UserId, request: AssignPlanRequest, *, versions: Versions
    ) -> Result[PlanAssignment, AssignmentRefusal | Conflict]:
        """Give a user a plan in place of the one that they have.

        A plan that gets no new subscribers keeps those that it has. Periods go on as they are
        unless the request says when they begin.
        Idempotency: to give what is there already changes nothing, its version neither.
        """
        if request.started_at is not None and request.started_at > utc_now():
            return Err(AssignmentRefusal.IN_THE_FUTURE)
        async with self._database.transaction(actor) as session:
            result = await _assign(session, actor, user_id, request, versions=versions)
        if isinstance(result, Ok):
            await self._invalidation.forget(Invalidation(users=(user_id,)))
        return result


async def read_terms(session: AsyncSession, user_id: UserId) -> Terms:
    """Return the plan of a user: their own, or the default one."""
    plan, started_at = (await session.exec(_TERMS, params={"user_id": user_id})).one()
    return Terms(plan, started_at)


async def _assign(
    session: AsyncSession,
    actor: Actor,
    user_id: UserId,
    request: AssignPlanRequest,
    *,
    versions: Versions,
) -> Result[PlanAssignment, AssignmentRefusal | Conflict]:
    # The user's row is the lock, since there may be no subscription yet. Of this strength it
    # leaves alone whoever stores rows that refer to the user.
    lock = {"key_share": True}
    if await session.get(UserRow, user_id, with_for_update=lock) is None:
        return Err(AssignmentRefusal.NO_SUCH_USER)
    held = await session.get(SubscriptionRow, user_id)
    if not is_meant(None if held is None else held.version, versions):
        return Err(Conflict.VERSION_CHANGED)
    # Shared, so that the plan is not deactivated meanwhile.
    plan = await session.get(PlanRow, request.plan_id, with_for_update={"read": True})
    if plan is None:
        return Err(AssignmentRefusal.NO_SUCH_PLAN)
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
        # What was used of the running period stays used of it, whatever the plan.
        started_at = period_at(utc_now()).start if held is None else held.started_at
    if held is not None:
        if is_same and started_at == held.started_at:
            return assignment_from_row(held)
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
    return assignment_from_row(row)
