"""Owns giving plans to users over HTTP."""

from typing import Annotated, assert_never

from fastapi import Request, Response

from api.dependencies import Services, may
from api.documentation import OF_ONE, error_docs
from api.envelope import Envelope, tagged
from api.errors import ApiError, invalid, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IfMatch, UserIdPath
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.subscriptions import AssignPlanRequest, PlanAssignment
from services.resources import Conflict, Unreachable
from services.subscriptions.service import AssignmentRefusal

router = GroupRouter("/admin/users", tag="admin")


@router.put(
    "/{user_id}/subscription",
    summary="Give a user a plan",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def assign_plan(
    request: Request,
    response: Response,
    user_id: UserIdPath,
    body: AssignPlanRequest,
    actor: Annotated[Actor, may(Permission.ADMIN_WRITE)],
    services: Services,
    versions: IfMatch,
) -> Envelope[PlanAssignment]:
    """Give a user a plan in place of the one that they have; it holds within seconds.

    Where periods begin anew, so do usage and budget.
    """
    assignment = value_or_raise(
        await services.subscriptions.assignments.assign(actor, user_id, body, versions=versions),
        _refused,
    )
    return tagged(request, response, assignment)


def _refused(refusal: AssignmentRefusal | Conflict) -> ApiError:
    match refusal:
        case Conflict():
            return refused(refusal, "subscription")
        case AssignmentRefusal.UNKNOWN_USER:
            return refused(Unreachable.MISSING, "user")
        case AssignmentRefusal.UNKNOWN_PLAN:
            return refused(Unreachable.MISSING, "plan")
        case AssignmentRefusal.INACTIVE_PLAN:
            return ApiError(ErrorCode.CONFLICT, "This plan is not active: nobody new can have it.")
        case AssignmentRefusal.IN_THE_FUTURE:
            return invalid("body.startedAt", "This lies in the future.")
        case _:
            assert_never(refusal)
