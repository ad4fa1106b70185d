"""Plans, their assignment to users, and the usage of all users."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Request, Response

from api.access import may
from api.dependencies import Subscriptions
from api.envelope import (
    Envelope,
    ListEnvelope,
    ListMeta,
    created,
    list_envelope,
    request_id_of,
    tagged,
)
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import IdempotencyKey, IfMatch, PlanIdPath, RequestedPage, UserIdPath
from api.routing import GroupRouter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.plans import ChangePlanRequest, CreatePlanRequest, Plan, PlanFilter, PlanSort
from schema.subscriptions import (
    AssignPlanRequest,
    PlanAssignment,
    UsageFilter,
    UsageRow,
    UsageSums,
)
from schema.wire import WireModel

router = GroupRouter("/admin", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]


@router.get(
    "/plans", name="admin.plans.list", summary="List plans", responses=error_docs(*SIGNED_IN)
)
async def list_plans(
    request: Request,
    actor: Reader,
    subscriptions: Subscriptions,
    page: RequestedPage,
    chosen: Annotated[PlanFilter, Query()],
    sort: PlanSort = PlanSort.CREATED,
) -> ListEnvelope[Plan]:
    """Return all plans, oldest first by default."""
    plans = await subscriptions.plans.list_plans(actor, chosen, page, sort=sort)
    return list_envelope(request, plans)


@router.post(
    "/plans",
    name="admin.plans.create",
    status_code=201,
    summary="Create a plan",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_plan(
    request: Request,
    response: Response,
    body: CreatePlanRequest,
    actor: Writer,
    subscriptions: Subscriptions,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Plan]:
    """Create a plan. With `isDefault` it replaces the default plan."""
    plan = value_or_raise(
        await subscriptions.plans.create(actor, body, key=idempotency_key), "plan"
    )
    return created(request, response, plan, at=f"{request.url.path}/{plan.id}")


@router.get(
    "/plans/{plan_id}",
    name="admin.plans.get",
    summary="Get a plan",
    responses=error_docs(*OF_ONE),
)
async def get_plan(
    request: Request,
    response: Response,
    plan_id: PlanIdPath,
    actor: Reader,
    subscriptions: Subscriptions,
) -> Envelope[Plan]:
    """Return one plan."""
    plan = value_or_raise(await subscriptions.plans.get(actor, plan_id), "plan")
    return tagged(request, response, plan)


@router.patch(
    "/plans/{plan_id}",
    name="admin.plans.update",
    summary="Update a plan",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_plan(
    request: Request,
    response: Response,
    plan_id: PlanIdPath,
    body: ChangePlanRequest,
    actor: Writer,
    subscriptions: Subscriptions,
    versions: IfMatch,
) -> Envelope[Plan]:
    """Change a plan; `entitlements` are replaced as a whole.

    Changes apply to subscribers within seconds. Subscribers keep a plan that becomes inactive.
    """
    changed = await subscriptions.plans.change(actor, plan_id, body, versions=versions)
    return tagged(request, response, value_or_raise(changed, "plan"))


@router.put(
    "/users/{user_id}/subscription",
    name="admin.subscriptions.assign",
    summary="Assign a plan to a user",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def assign_plan(
    request: Request,
    response: Response,
    user_id: UserIdPath,
    body: AssignPlanRequest,
    actor: Writer,
    subscriptions: Subscriptions,
    versions: IfMatch,
) -> Envelope[PlanAssignment]:
    """Replace a user's plan; this applies within seconds.

    If `startedAt` moves the start of the periods, usage and budget start again with it.
    """
    assigned = await subscriptions.assignments.assign(actor, user_id, body, versions=versions)
    return tagged(request, response, value_or_raise(assigned, "subscription"))


class UsageReportMeta(ListMeta):
    """Information about a page of usage; the totals are those of all pages."""

    totals: UsageSums


class UsageReportResponse(WireModel):
    """A page of usage."""

    data: Sequence[UsageRow]
    meta: UsageReportMeta


@router.get(
    "/usage",
    name="admin.usage.get",
    summary="Get all users' usage",
    responses=error_docs(*SIGNED_IN),
)
async def get_usage(
    request: Request,
    actor: Reader,
    subscriptions: Subscriptions,
    page: RequestedPage,
    chosen: Annotated[UsageFilter, Query()],
) -> UsageReportResponse:
    """Sum up the ledger by user, model or day; the last 30 days by default.

    A user, model or day without usage has no row.
    """
    report = await subscriptions.reports.report(actor, chosen, page)
    meta = UsageReportMeta(
        request_id=request_id_of(request),
        next_cursor=report.rows.next_cursor,
        totals=report.totals,
    )
    return UsageReportResponse(data=report.rows.items, meta=meta)
