"""Plans as administrators manage them, one of them the default, and the models they allow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import PlanId, new_id
from schema.pages import Page, PageRequest
from schema.plans import (
    ChangePlanRequest,
    CreatePlanRequest,
    Entitlements,
    Plan,
    PlanFilter,
    PlanSort,
)
from schema.result import Err, Ok, Result
from schema.tables import PlanRow
from services.audit import record
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.database import Database
from services.database.connections import lock
from services.database.queries import Listing, Order, by_id
from services.resources import Conflict, Unreachable, Versions, create_once, touch, version_matches

_ORDERS: Final = {
    PlanSort.CREATED: Order("createdAt", (col(PlanRow.id),)),
    PlanSort.CREATED_LAST: Order("-createdAt", (col(PlanRow.id),), descending=True),
    PlanSort.NAME: Order("name", (col(PlanRow.name),)),
    PlanSort.NAME_LAST: Order("-name", (col(PlanRow.name),), descending=True),
}
_PLAN: Final = by_id(PlanRow)
_IS_ACTIVE: Final[Any] = col(PlanRow.active)
_PLANS: Final = Listing(select(PlanRow), {"active": {True: _IS_ACTIVE, False: ~_IS_ACTIVE}})

_WIRE_NAMES: Final = {
    name: field.serialization_alias or name
    for name, field in ChangePlanRequest.model_fields.items()
}


class PlanRefusal(StrEnum):
    """Why a plan can't be created or changed."""

    NAME_TAKEN = "name_taken"
    DEFAULT_NEEDED = "default_needed"
    DEFAULT_INACTIVE = "default_inactive"


@dataclass(frozen=True, slots=True)
class UnknownModel:
    """Entitlements name an unknown model, at this position of their list."""

    position: int


class PlanService:
    """Manages plans. Errors: DatabaseUnavailableError."""

    def __init__(
        self, database: Database, invalidation: CacheInvalidation, *, models: tuple[str, ...]
    ) -> None:
        self._database = database
        self._invalidation = invalidation
        self._models = models

    async def create(
        self, actor: Actor, request: CreatePlanRequest, *, key: str | None
    ) -> Result[Plan, PlanRefusal | UnknownModel | Conflict]:
        """Create a plan.

        Idempotency: retrying with the same key and request returns the plan created before.
        """
        unknown = self._unknown_model(request.entitlements)
        if unknown is not None:
            return Err(unknown)
        plan_id = new_id()

        async def create(session: AsyncSession) -> Result[Plan, PlanRefusal]:
            await _lock_plans(session)
            if await _is_taken(session, request.name):
                return Err(PlanRefusal.NAME_TAKEN)
            # As created: another plan may become the default right after the commit.
            return Ok(Plan.model_validate(await _insert(session, actor, plan_id, request)))

        created = await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=plan_id,
            create=create,
            find=lambda earlier: self.get(actor, PlanId(UUID(earlier))),
        )
        if isinstance(created, Ok) and created.value.is_default:
            await self._invalidation.publish(Invalidation(all_users=True))
        return created

    async def list_plans(
        self, actor: Actor, chosen: PlanFilter, page: PageRequest, *, sort: PlanSort
    ) -> Page[Plan]:
        """Return the plans that match the filter, in the given order.

        Errors: InvalidCursorError.
        """
        async with self._database.statements(actor) as connection:
            rows = await _PLANS.read(connection, page, _ORDERS[sort], vars(chosen))
        return rows.map(Plan.model_validate)

    async def get(self, actor: Actor, plan_id: PlanId) -> Result[Plan, Unreachable]:
        """Return one plan."""
        async with self._database.statements(actor) as connection:
            row = await _PLAN.first(connection, id=plan_id)
        return Err(Unreachable.MISSING) if row is None else Ok(Plan.model_validate(row))

    async def change(
        self, actor: Actor, plan_id: PlanId, request: ChangePlanRequest, *, versions: Versions
    ) -> Result[Plan, PlanRefusal | UnknownModel | Conflict | Unreachable]:
        """Change a plan; a new default plan replaces the earlier one.

        Values that the plan already has change nothing, not even its version.
        """
        values = _values_of(request)
        unknown = self._unknown_model(request.entitlements) if "entitlements" in values else None
        if unknown is not None:
            return Err(unknown)
        async with self._database.transaction(actor) as session:
            await _lock_plans(session)
            row = await session.get(PlanRow, plan_id, with_for_update=True)
            if row is None:
                return Err(Unreachable.MISSING)
            if not version_matches(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            refusal = await _refusal(session, row, values)
            if refusal is not None:
                return Err(refusal)
            await _change(session, actor, row, values)
            plan = Plan.model_validate(row)
        await self._invalidation.publish(Invalidation(all_users=True))
        return Ok(plan)

    def _unknown_model(self, entitlements: Entitlements) -> UnknownModel | None:
        for position, model in enumerate(entitlements.models or ()):
            if model not in self._models:
                return UnknownModel(position)
        return None


async def _lock_plans(session: AsyncSession) -> None:
    # Names and the default concern all plans at once: writing one locks them all.
    await lock(session, "plans")


async def _is_taken(session: AsyncSession, name: str) -> bool:
    found = await session.exec(select(PlanRow.id).where(col(PlanRow.name) == name))
    return found.first() is not None


async def _insert(
    session: AsyncSession, actor: Actor, plan_id: UUID, request: CreatePlanRequest
) -> PlanRow:
    if request.is_default:
        await _take_default(session, actor)
    row = PlanRow(
        id=plan_id,
        name=request.name,
        description=request.description,
        entitlements=stored_entitlements(request.entitlements),
        is_default=request.is_default,
    )
    session.add(row)
    record(session, actor, AuditAction.PLAN_CREATED, (ResourceType.PLAN, plan_id))
    await session.flush()
    return row


async def _refusal(
    session: AsyncSession, row: PlanRow, values: dict[str, Any]
) -> PlanRefusal | None:
    is_default = values.get("is_default", row.is_default)
    if row.is_default and not is_default:
        return PlanRefusal.DEFAULT_NEEDED
    if is_default and not values.get("active", row.active):
        return PlanRefusal.DEFAULT_INACTIVE
    name = values.get("name", row.name)
    if name != row.name and await _is_taken(session, name):
        return PlanRefusal.NAME_TAKEN
    return None


async def _change(
    session: AsyncSession, actor: Actor, row: PlanRow, values: dict[str, Any]
) -> None:
    """Write the changed values, and record their names."""
    changed = list(_changed(row, values))
    if not changed:
        return
    if "isDefault" in changed:
        await _take_default(session, actor)
    for name, value in values.items():
        setattr(row, name, value)
    await _record_change(session, actor, row, changed)


async def _take_default(session: AsyncSession, actor: Actor) -> None:
    """Unset the present default plan: there is exactly one at any time."""
    found = await session.exec(select(PlanRow).where(col(PlanRow.is_default)))
    earlier = found.one()
    earlier.is_default = False
    await _record_change(session, actor, earlier, ["isDefault"])


async def _record_change(
    session: AsyncSession, actor: Actor, row: PlanRow, changed: list[str]
) -> None:
    touch(row)
    resource = (ResourceType.PLAN, row.id)
    record(session, actor, AuditAction.PLAN_CHANGED, resource, details={"changed": changed})
    await session.flush()


def _values_of(request: ChangePlanRequest) -> dict[str, Any]:
    """Return the requested values as the columns hold them."""
    values = request.changes()
    if "entitlements" in values:
        values["entitlements"] = stored_entitlements(request.entitlements)
    return values


def _changed(row: PlanRow, values: dict[str, Any]) -> Iterator[str]:
    """Yield the names of changed fields, with the names of changed entitlements."""
    for name, value in values.items():
        if name == "entitlements":
            stored = stored_entitlements(Entitlements.model_validate(row.entitlements))
            yield from (f"entitlements.{part}" for part in value if value[part] != stored[part])
        elif value != getattr(row, name):
            yield _WIRE_NAMES[name]


def stored_entitlements(entitlements: Entitlements) -> dict[str, Any]:
    """Return entitlements as their column holds them."""
    return entitlements.model_dump(mode="json", by_alias=True)


def allows_model(entitlements: Entitlements | None, model: str) -> bool:
    """Return whether a plan allows a model; without entitlements, none is allowed."""
    return entitlements is not None and (
        entitlements.models is None or model in entitlements.models
    )


def choose_model(
    entitlements: Entitlements,
    wanted: str | None,
    *,
    models: Sequence[str],
    preferred: Sequence[str | None],
) -> str | None:
    """Return the model to use, or None if the plan does not allow it, or allows none.

    `wanted` is one of `models`. Without it, the first preferred model that exists and is allowed
    is used, or else the first existing one that the plan allows.
    """
    if wanted is not None:
        return wanted if allows_model(entitlements, wanted) else None
    allowed = models if entitlements.models is None else entitlements.models
    candidates = (*filter(None, preferred), *allowed)
    usable = (
        model for model in candidates if model in models and allows_model(entitlements, model)
    )
    return next(usable, None)
