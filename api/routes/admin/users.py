"""Owns the accounts of all users over HTTP."""

from functools import partial
from typing import Annotated, assert_never

from fastapi import Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, list_envelope, tagged
from api.errors import ApiError, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IfMatch, UserIdPath
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.users import (
    ManagedUser,
    ManageUserRequest,
    UserFilter,
    UserSort,
)
from services.resources import Conflict, Unreachable
from services.users.administration import ManagementRefusal

router = GroupRouter("/admin/users", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]

_refused = partial(refused, noun="user")


@router.get(
    "",
    summary="List users",
    responses=error_docs(*SIGNED_IN),
)
async def list_users(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[UserFilter, Query()],
    sort: UserSort = UserSort.CREATED_LAST,
) -> ListEnvelope[ManagedUser]:
    """Return all users, newest first unless sorted otherwise."""
    found = await services.accounts.administration.list_users(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.get(
    "/{user_id}",
    summary="Read a user",
    responses=error_docs(*OF_ONE),
)
async def get_user(
    request: Request, response: Response, user_id: UserIdPath, actor: Reader, services: Services
) -> Envelope[ManagedUser]:
    """Return one user."""
    user = value_or_raise(await services.accounts.administration.get(actor, user_id), _refused)
    return tagged(request, response, user)


@router.patch(
    "/{user_id}",
    summary="Change a user",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_user(
    request: Request,
    response: Response,
    user_id: UserIdPath,
    body: ManageUserRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[ManagedUser]:
    """Change a user's role, status or name.

    Disabling ends the user's sign-ins for good; API keys work again once the user is enabled.
    """
    user = value_or_raise(
        await services.accounts.administration.change(actor, user_id, body, versions=versions),
        _not_changed,
    )
    return tagged(request, response, user)


def _not_changed(refusal: ManagementRefusal | Conflict | Unreachable) -> ApiError:
    match refusal:
        case ManagementRefusal.LAST_ADMINISTRATOR:
            return ApiError(
                ErrorCode.CONFLICT, "This is the last administrator. Make somebody else one first."
            )
        case ManagementRefusal.NOT_ADMINISTRATOR:
            return ApiError(ErrorCode.FORBIDDEN, "You are no administrator any more.")
        case Conflict() | Unreachable():
            return refused(refusal, "user")
        case _:
            assert_never(refusal)
