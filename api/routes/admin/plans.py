"""Owns plans over HTTP, which administrators keep."""

from typing import Annotated, assert_never

from fastapi import Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import ApiError, invalid, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IdempotencyKey, IfMatch, PlanIdPath
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.plans import ChangePlanRequest, CreatePlanRequest, Plan, PlanFilter, PlanSort
from services.resources import Conflict, Unreachable
from services.subscriptions.plans import PlanRefusal, UnknownModel

router = GroupRouter("/admin/plans", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]


@router.get(
    "",
    summary="List plans",
    responses=error_docs(*SIGNED_IN),
)
async def list_plans(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[PlanFilter, Query()],
    sort: PlanSort = PlanSort.CREATED,
) -> ListEnvelope[Plan]:
    """Return all plans, oldest first unless sorted otherwise."""
    return list_envelope(
        request, await services.subscriptions.plans.list_plans(actor, chosen, page, sort=sort)
    )


@router.post(
    "",
    status_code=201,
    summary="Make a plan",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_plan(
    request: Request,
    response: Response,
    body: CreatePlanRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Plan]:
    """Make a plan; as the default it takes the place of the one that was."""
    plan = value_or_raise(
        await services.subscriptions.plans.create(actor, body, key=idempotency_key), _refused
    )
    return created(request, response, plan, at=f"{request.url.path}/{plan.id}")


@router.get(
    "/{plan_id}",
    summary="Read a plan",
    responses=error_docs(*OF_ONE),
)
async def get_plan(
    request: Request, response: Response, plan_id: PlanIdPath, actor: Reader, services: Services
) -> Envelope[Plan]:
    """Return one plan."""
    return tagged(
        request,
        response,
        value_or_raise(await services.subscriptions.plans.get(actor, plan_id), _refused),
    )


@router.patch(
    "/{plan_id}",
    summary="Change a plan",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_plan(
    request: Request,
    response: Response,
    plan_id: PlanIdPath,
    body: ChangePlanRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[Plan]:
    """Change a plan; its entitlements are replaced as a whole. Subscribers keep a plan that ends.

    What changes holds for its subscribers within seconds.
    """
    plan = value_or_raise(
        await services.subscriptions.plans.change(actor, plan_id, body, versions=versions), _refused
    )
    return tagged(request, response, plan)


def _refused(refusal: PlanRefusal | UnknownModel | Conflict | Unreachable) -> ApiError:
    match refusal:
        case Conflict() | Unreachable():
            return refused(refusal, "plan")
        case UnknownModel(position):
            path = f"body.entitlements.models.{position}"
            return invalid(path, "There is no such model here.")
        case PlanRefusal.NAME_TAKEN:
            return ApiError(ErrorCode.CONFLICT, "There is a plan of this name already.")
        case PlanRefusal.DEFAULT_NEEDED:
            return ApiError(
                ErrorCode.CONFLICT,
                "This is the default plan. Make another the default; this one then is none.",
            )
        case PlanRefusal.DEFAULT_INACTIVE:
            return ApiError(ErrorCode.CONFLICT, "The default plan has to be active.")
        case _:
            assert_never(refusal)
