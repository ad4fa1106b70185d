"""Owns turning rows of plans and subscriptions into what clients see."""

from typing import Any

from schema.ids import PlanId, UserId
from schema.plans import Entitlements, Plan
from schema.subscriptions import PlanAssignment, SubscribedPlan
from schema.tables import PlanRow, SubscriptionRow


def plan_from_row(row: PlanRow) -> Plan:
    """Return the plan that the row holds."""
    return Plan(
        id=PlanId(row.id),
        name=row.name,
        description=row.description,
        entitlements=Entitlements.model_validate(row.entitlements),
        is_default=row.is_default,
        active=row.active,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def subscribed_plan_from_row(row: PlanRow) -> SubscribedPlan:
    """Return what subscribers see of the plan that the row holds."""
    return SubscribedPlan(
        id=PlanId(row.id),
        name=row.name,
        description=row.description,
        entitlements=Entitlements.model_validate(row.entitlements),
    )


def assignment_from_row(row: SubscriptionRow) -> PlanAssignment:
    """Return the assignment that the row holds."""
    return PlanAssignment(
        user_id=UserId(row.user_id),
        plan_id=PlanId(row.plan_id),
        started_at=row.started_at,
        version=row.version,
        updated_at=row.updated_at,
    )


def stored_entitlements(entitlements: Entitlements) -> dict[str, Any]:
    """Return entitlements as their column holds them."""
    return entitlements.model_dump(mode="json", by_alias=True)
