"""Budgets beside those of plans: of one user, and of all users together."""

from typing import Annotated

from fastapi import Request, Response

from api.access import may
from api.dependencies import Subscriptions
from api.envelope import Envelope, tagged
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import IfMatch, UserIdPath
from api.routing import GroupRouter
from schema.actors import Actor
from schema.budgets import BudgetLimits, InstallationBudget, UserBudget
from schema.errors import ErrorCode
from schema.permissions import Permission

router = GroupRouter("/admin", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_CHANGING_A_USERS = error_docs(*OF_ONE, ErrorCode.PRECONDITION_FAILED)
_CHANGING_THE_INSTALLATIONS = error_docs(*SIGNED_IN, ErrorCode.PRECONDITION_FAILED)


@router.get(
    "/users/{user_id}/budget",
    name="admin.userBudgets.get",
    summary="Get a user's budget",
    responses=error_docs(*OF_ONE),
)
async def get_user_budget(
    request: Request,
    response: Response,
    user_id: UserIdPath,
    actor: Reader,
    subscriptions: Subscriptions,
) -> Envelope[UserBudget]:
    """Return the limits that apply to a user, and what they have spent.

    `source` says whether they are the user's own or their plan's.
    """
    budget = value_or_raise(await subscriptions.overrides.of_user(actor, user_id), "user")
    return tagged(request, response, budget)


@router.put(
    "/users/{user_id}/budget",
    name="admin.userBudgets.set",
    summary="Set a user's budget",
    responses=_CHANGING_A_USERS,
)
async def set_user_budget(
    request: Request,
    response: Response,
    user_id: UserIdPath,
    body: BudgetLimits,
    actor: Writer,
    subscriptions: Subscriptions,
    versions: IfMatch,
) -> Envelope[UserBudget]:
    """Replace all four limits of the user's plan; omitted ones become null, without a limit.

    This applies from the next call of a model or paid tool, in running turns too.
    """
    result = await subscriptions.overrides.set_for_user(actor, user_id, body, versions=versions)
    return tagged(request, response, value_or_raise(result, "user"))


@router.delete(
    "/users/{user_id}/budget",
    name="admin.userBudgets.delete",
    status_code=204,
    summary="Return a user to the plan's budget",
    responses=_CHANGING_A_USERS,
)
async def delete_user_budget(
    user_id: UserIdPath, actor: Writer, subscriptions: Subscriptions, versions: IfMatch
) -> Response:
    """Remove a user's own limits, so that the plan's apply again. Repeating it is harmless."""
    result = await subscriptions.overrides.remove_from_user(actor, user_id, versions=versions)
    value_or_raise(result, "user")
    return Response(status_code=204)


@router.get(
    "/budget",
    name="admin.budget.get",
    summary="Get the server's budget",
    responses=error_docs(*SIGNED_IN),
)
async def get_installation_budget(
    request: Request, response: Response, actor: Reader, subscriptions: Subscriptions
) -> Envelope[InstallationBudget]:
    """Return the limits of all users together, and what they have spent. Months are in UTC."""
    return tagged(request, response, await subscriptions.overrides.of_installation(actor))


@router.put(
    "/budget",
    name="admin.budget.set",
    summary="Set the server's budget",
    responses=_CHANGING_THE_INSTALLATIONS,
)
async def set_installation_budget(
    request: Request,
    response: Response,
    body: BudgetLimits,
    actor: Writer,
    subscriptions: Subscriptions,
    versions: IfMatch,
) -> Envelope[InstallationBudget]:
    """Set the limits of all users together; omitted ones become null, without a limit.

    They apply beside each user's own, from the next call of a model or paid tool.
    """
    result = await subscriptions.overrides.set_for_installation(actor, body, versions=versions)
    return tagged(request, response, value_or_raise(result, "budget"))


@router.delete(
    "/budget",
    name="admin.budget.delete",
    status_code=204,
    summary="Remove the server's budget",
    responses=_CHANGING_THE_INSTALLATIONS,
)
async def delete_installation_budget(
    actor: Writer, subscriptions: Subscriptions, versions: IfMatch
) -> Response:
    """Lift the limits of all users together. Repeating it is harmless."""
    result = await subscriptions.overrides.remove_from_installation(actor, versions=versions)
    value_or_raise(result, "budget")
    return Response(status_code=204)
