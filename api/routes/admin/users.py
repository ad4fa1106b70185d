"""Accounts of all users, as administrators see them."""

from typing import Annotated

from fastapi import Query, Request, Response

from api.access import may
from api.dependencies import Accounts
from api.envelope import Envelope, ListEnvelope, list_envelope, tagged
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import IfMatch, RequestedPage, UserIdPath
from api.routing import GroupRouter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.users import ManagedUser, ManageUserRequest, UserFilter, UserSort

router = GroupRouter("/admin/users", tag="admin")

Reader = Annotated[Actor, may(Permission.ADMIN_READ)]
Writer = Annotated[Actor, may(Permission.ADMIN_WRITE)]


@router.get("", name="admin.users.list", summary="List users", responses=error_docs(*SIGNED_IN))
async def list_users(
    request: Request,
    actor: Reader,
    accounts: Accounts,
    page: RequestedPage,
    chosen: Annotated[UserFilter, Query()],
    sort: UserSort = UserSort.CREATED_LAST,
) -> ListEnvelope[ManagedUser]:
    """Return all users, newest first by default."""
    found = await accounts.administration.list_users(actor, chosen, page, sort=sort)
    return list_envelope(request, found)


@router.get(
    "/{user_id}", name="admin.users.get", summary="Get a user", responses=error_docs(*OF_ONE)
)
async def get_user(
    request: Request, response: Response, user_id: UserIdPath, actor: Reader, accounts: Accounts
) -> Envelope[ManagedUser]:
    """Return one user."""
    user = value_or_raise(await accounts.administration.get(actor, user_id), "user")
    return tagged(request, response, user)


@router.patch(
    "/{user_id}",
    name="admin.users.update",
    summary="Update a user",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_user(
    request: Request,
    response: Response,
    user_id: UserIdPath,
    body: ManageUserRequest,
    actor: Writer,
    accounts: Accounts,
    versions: IfMatch,
) -> Envelope[ManagedUser]:
    """Change a user's role, status or display name.

    Disabling ends the user's sessions for good; API keys work again once the user is enabled.
    """
    changed = await accounts.administration.change(actor, user_id, body, versions=versions)
    return tagged(request, response, value_or_raise(changed, "user"))
