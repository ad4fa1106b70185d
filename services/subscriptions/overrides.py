"""Budgets beside those of plans, as administrators set them: of one user, of the installation.

They are not cached: the next reservation reads what is stored now. API keys get theirs when they
are created (services/users/api_keys.py).
"""

from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.budgets import (
    BudgetLimits,
    BudgetScope,
    InstallationBudget,
    LimitsSource,
    UserBudget,
)
from schema.ids import UserId
from schema.result import Err, Ok, Result
from schema.tables import BudgetRow, UserRow
from schema.tables.columns import utc_now
from services.audit import record
from services.database import Connection, Database
from services.database.connections import lock
from services.database.queries import AttributeRow
from services.resources import Conflict, Unreachable, Versions, touch, version_matches
from services.subscriptions.budget_use import INSTALLATION, read_installation, read_spent
from services.subscriptions.periods import period_at
from services.subscriptions.service import limits_of, read_terms

_EXISTS: Final = "SELECT EXISTS (SELECT FROM users WHERE id = $1)"
_OF_INSTALLATION: Final = "SELECT * FROM budgets WHERE scope = 'installation'"

_Subject: TypeAlias = tuple[BudgetScope, UUID]

_RECORDED: Final = {
    BudgetScope.USER: (
        ResourceType.USER,
        AuditAction.USER_BUDGET_SET,
        AuditAction.USER_BUDGET_REMOVED,
    ),
    BudgetScope.INSTALLATION: (
        ResourceType.INSTALLATION,
        AuditAction.INSTALLATION_BUDGET_SET,
        AuditAction.INSTALLATION_BUDGET_REMOVED,
    ),
}


class BudgetOverrides:
    """Sets and removes budgets. Errors: DatabaseUnavailableError.

    Idempotency: setting the present limits, or removing none, changes nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_user(self, actor: Actor, user_id: UserId) -> Result[UserBudget, Unreachable]:
        """Return the limits that apply to a user, of their own or of their plan."""
        async with self._database.statements(actor) as connection:
            if not await connection.fetchval(_EXISTS, user_id):
                return Err(Unreachable.MISSING)
            return Ok(await _user_budget(connection, user_id))

    async def set_for_user(
        self, actor: Actor, user_id: UserId, limits: BudgetLimits, *, versions: Versions
    ) -> Result[UserBudget, Conflict | Unreachable]:
        """Replace all limits of a user's plan."""
        async with self._database.transaction(actor) as session:
            if not await _lock_user(session, user_id):
                return Err(Unreachable.MISSING)
            subject = (BudgetScope.USER, user_id)
            if not await _set(session, actor, subject, limits, versions=versions):
                return Err(Conflict.VERSION_CHANGED)
        return await self.of_user(actor, user_id)

    async def remove_from_user(
        self, actor: Actor, user_id: UserId, *, versions: Versions
    ) -> Result[None, Conflict | Unreachable]:
        """Return to the limits of the user's plan."""
        async with self._database.transaction(actor) as session:
            if not await _lock_user(session, user_id):
                return Err(Unreachable.MISSING)
            subject = (BudgetScope.USER, user_id)
            if not await _remove(session, actor, subject, versions=versions):
                return Err(Conflict.VERSION_CHANGED)
        return Ok(None)

    async def of_installation(self, actor: Actor) -> InstallationBudget:
        """Return the limits of all users together."""
        async with self._database.statements(actor) as connection:
            row: Any = await connection.fetchrow(_OF_INSTALLATION, record_class=AttributeRow)
            limits = BudgetLimits() if row is None else limits_of(row)
            spent = await read_installation(connection, is_counted=row is not None)
            return InstallationBudget(
                **vars(limits),
                **vars(spent.against(limits)),
                version=0 if row is None else row.version,
                updated_at=None if row is None else row.updated_at,
            )

    async def set_for_installation(
        self, actor: Actor, limits: BudgetLimits, *, versions: Versions
    ) -> Result[InstallationBudget, Conflict]:
        """Set the limits of all users together.

        The first time it waits for all transactions that write to the ledger.
        """
        async with self._database.transaction(actor) as session:
            await lock(session, "installation budget")
            subject = (BudgetScope.INSTALLATION, INSTALLATION)
            if not await _set(session, actor, subject, limits, versions=versions):
                return Err(Conflict.VERSION_CHANGED)
        return Ok(await self.of_installation(actor))

    async def remove_from_installation(
        self, actor: Actor, *, versions: Versions
    ) -> Result[None, Conflict]:
        """Lift the limits of all users together."""
        async with self._database.transaction(actor) as session:
            await lock(session, "installation budget")
            subject = (BudgetScope.INSTALLATION, INSTALLATION)
            if not await _remove(session, actor, subject, versions=versions):
                return Err(Conflict.VERSION_CHANGED)
        return Ok(None)


async def _user_budget(connection: Connection, user_id: UserId) -> UserBudget:
    terms = await read_terms(connection, user_id)
    override = terms.override
    period = period_at(utc_now(), anchor=terms.anchor)
    spent = await read_spent(connection, BudgetScope.USER, [user_id], period=period)
    return UserBudget(
        **{name: getattr(terms.limits, name) for name in BudgetLimits.model_fields},
        **vars(spent[user_id].against(terms.limits)),
        user_id=user_id,
        source=LimitsSource.PLAN if override is None else LimitsSource.USER,
        version=0 if override is None else override.version,
        updated_at=None if override is None else override.updated_at,
    )


async def _lock_user(session: AsyncSession, user_id: UserId) -> bool:
    """Lock the user's row, since there may be no budget yet; return whether there is one."""
    return await session.get(UserRow, user_id, with_for_update={"key_share": True}) is not None


async def _set(
    session: AsyncSession,
    actor: Actor,
    subject: _Subject,
    limits: BudgetLimits,
    *,
    versions: Versions,
) -> bool:
    """Store the limits, under a lock of the subject; return whether the version was right."""
    row = await session.get(BudgetRow, subject)
    if not version_matches(0 if row is None else row.version, versions):
        return False
    if row is not None and limits_of(row) == limits:
        return True
    scope, subject_id = subject
    if row is None:
        row = BudgetRow(
            scope=scope.value,
            subject_id=subject_id,
            user_id=subject_id if scope is BudgetScope.USER else None,
        )
    else:
        touch(row)
    for name, value in vars(limits).items():
        setattr(row, name, value)
    session.add(row)
    _record(session, actor, subject, limits)
    await session.flush()
    return True


async def _remove(
    session: AsyncSession, actor: Actor, subject: _Subject, *, versions: Versions
) -> bool:
    """Delete the limits, under a lock of the subject; return whether the version was right."""
    row = await session.get(BudgetRow, subject)
    if not version_matches(0 if row is None else row.version, versions):
        return False
    if row is not None:
        _record(session, actor, subject, None)
        await session.delete(row)
        await session.flush()
    return True


def _record(
    session: AsyncSession, actor: Actor, subject: _Subject, limits: BudgetLimits | None
) -> None:
    """Record that limits were set, or with None that they were removed."""
    scope, subject_id = subject
    resource, was_set, was_removed = _RECORDED[scope]
    user_id = subject_id if scope is BudgetScope.USER else None
    record(
        session,
        actor,
        was_removed if limits is None else was_set,
        (resource, user_id),
        subject_id=user_id,
        details=None if limits is None else limits.model_dump(mode="json", by_alias=True),
    )
