"""Accounts as administrators see and change them: role, status, name."""

from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Text, Uuid, and_, bindparam, exists, func, literal_column, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import UserId
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import PlanRow, SubscriptionRow, UserRow
from schema.users import (
    ManagedUser,
    ManageUserRequest,
    UserFilter,
    UserRole,
    UserSort,
    UserStatus,
)
from services.audit import changed, record
from services.auth.accounts import lock_administrators
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.auth.sessions import end_sessions, lock_user
from services.database import Database
from services.database.queries import CompiledQuery, Listing, Order, contains_searched, equals
from services.resources import Conflict, Unreachable, Versions, touch, version_matches

# Not every user has an email, and cursors hold no nulls. The constants are written out: with
# parameters the expression would not match the index.
_EMAIL: Final = func.left(
    func.coalesce(col(UserRow.email), literal_column("''")), literal_column("250"), type_=Text
).label("sort_email")
_ORDERS: Final = {
    UserSort.CREATED: Order("createdAt", (col(UserRow.id),)),
    UserSort.CREATED_LAST: Order("-createdAt", (col(UserRow.id),), descending=True),
    UserSort.EMAIL: Order("email", (_EMAIL, col(UserRow.id))),
    UserSort.EMAIL_LAST: Order("-email", (_EMAIL, col(UserRow.id)), descending=True),
}
_DEFAULT_PLAN: Final = select(PlanRow.id).where(col(PlanRow.is_default)).scalar_subquery()
_PLAN_ID: Final[Any] = func.coalesce(
    select(SubscriptionRow.plan_id)
    .where(col(SubscriptionRow.user_id) == col(UserRow.id))
    .scalar_subquery(),
    _DEFAULT_PLAN,
).label("plan_id")
_HAS_SUBSCRIPTION: Final = exists().where(col(SubscriptionRow.user_id) == col(UserRow.id))
_WANTED_PLAN: Final = bindparam("plan_id", type_=Uuid)
_WITH_PLAN: Final[Any] = select(UserRow, _PLAN_ID)
_USER: Final = CompiledQuery(_WITH_PLAN.where(col(UserRow.id) == bindparam("user_id", type_=Uuid)))
_USERS: Final = Listing(
    _WITH_PLAN,
    {
        **equals(col(UserRow.role), col(UserRow.status)),
        "search": or_(contains_searched(UserRow.email), contains_searched(UserRow.display_name)),
        # Users without a subscription have the default plan.
        "plan_id": or_(
            _HAS_SUBSCRIPTION.where(col(SubscriptionRow.plan_id) == _WANTED_PLAN),
            and_(
                ~_HAS_SUBSCRIPTION,
                exists().where(col(PlanRow.id) == _WANTED_PLAN, col(PlanRow.is_default)),
            ),
        ),
    },
)


class ManagementRefusal(StrEnum):
    """Why an account was not changed."""

    LAST_ADMINISTRATOR = "last_administrator"
    NOT_ADMINISTRATOR = "not_administrator"


class UserAdministration:
    """Manages accounts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, invalidation: CacheInvalidation) -> None:
        self._database = database
        self._invalidation = invalidation

    async def list_users(
        self, actor: Actor, chosen: UserFilter, page: PageRequest, *, sort: UserSort
    ) -> Page[ManagedUser]:
        """Return the users that match the filter, in the given order.

        Errors: InvalidCursorError.
        """
        async with self._database.statements(actor) as connection:
            rows = await _USERS.read(connection, page, _ORDERS[sort], vars(chosen))
        return rows.map(ManagedUser.model_validate)

    async def get(self, actor: Actor, user_id: UserId) -> Result[ManagedUser, Unreachable]:
        """Return one user."""
        async with self._database.statements(actor) as connection:
            row = await _USER.first(connection, user_id=user_id)
        if row is None:
            return Err(Unreachable.MISSING)
        return Ok(ManagedUser.model_validate(row))

    async def change(
        self, actor: Actor, user_id: UserId, request: ManageUserRequest, *, versions: Versions
    ) -> Result[ManagedUser, ManagementRefusal | Conflict | Unreachable]:
        """Change a user's role, status or name, if the version is one of `versions`.

        Disabling ends the user's sign-ins for good: enabling does not restore them.
        """
        # As the service: sign-ins are hidden from administrators.
        async with self._database.transaction(SERVICE) as session:
            administrators = await lock_administrators(session)
            if actor.user_id not in administrators:
                # The role was taken away after the request was authenticated.
                return Err(ManagementRefusal.NOT_ADMINISTRATOR)
            row = await lock_user(session, user_id)
            if row is None:
                return Err(Unreachable.MISSING)
            if not version_matches(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            changes = request.changes()
            if administrators == {row.id} and _ends_administration(changes):
                return Err(ManagementRefusal.LAST_ADMINISTRATOR)
            ended = await _apply(session, row, changes)
            _record(session, actor, user_id, changes)
            changed = await _managed_user(session, row)
        await self._invalidation.publish(Invalidation(users=(user_id,), sessions=tuple(ended)))
        return Ok(changed)


def _ends_administration(changes: dict[str, Any]) -> bool:
    return (
        changes.get("role", UserRole.ADMIN) is not UserRole.ADMIN
        or changes.get("status", UserStatus.ACTIVE) is not UserStatus.ACTIVE
    )


async def _apply(session: AsyncSession, row: UserRow, changes: dict[str, Any]) -> frozenset[UUID]:
    """Write the changes, and return the sign-ins that they end."""
    for name, value in changes.items():
        setattr(row, name, value)
    touch(row)
    await session.flush()
    if row.status != UserStatus.DISABLED:
        return frozenset()
    return await end_sessions(session, row.id)


def _record(session: AsyncSession, actor: Actor, user_id: UserId, changes: dict[str, Any]) -> None:
    """Record which fields were changed, without values: people write names."""
    account, details = (ResourceType.USER, user_id), changed(changes)
    record(session, actor, AuditAction.USER_CHANGED, account, subject_id=user_id, details=details)


async def _managed_user(session: AsyncSession, row: UserRow) -> ManagedUser:
    plan = select(_PLAN_ID).where(col(UserRow.id) == row.id)
    plan_id = (await session.exec(plan)).one()
    return ManagedUser.model_validate({**row.model_dump(), "plan_id": plan_id})
