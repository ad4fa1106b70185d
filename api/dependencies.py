"""Owns what routes are given: the services, the actor, the page that is asked for."""

from typing import Annotated, Any

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import ApiError
from api.rate_limit_answers import tell
from api.service_groups import ApiServices
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.pages import PageRequest
from schema.permissions import Permission
from services.auth.callers import Caller
from services.database import DatabaseUnavailableError


def services_of(request: Request) -> ApiServices:
    """Return the services of the application that a request came to.

    Dependencies of every route ask here: FastAPI solves a dependency of theirs once for each.
    """
    services: ApiServices = request.app.state.services
    return services


# Async although nothing waits: FastAPI hands plain functions to a thread.
async def _services(request: Request) -> ApiServices:
    return services_of(request)


Services = Annotated[ApiServices, Depends(_services)]

_bearer = HTTPBearer(
    auto_error=False,
    description="An access token from `/auth/login`, an API key, or a token of an outside issuer.",
)


def client_host(request: Request) -> str | None:
    """Return the address that a request comes from, as far as it is known."""
    return None if request.client is None else request.client.host


async def _current_caller(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Caller:
    if credentials is None:
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    services = services_of(request)
    caller = await services.accounts.callers.authenticate(credentials.credentials)
    if caller is None:
        # What is valid is let through whatever others at its address do.
        tell(request, await services.operations.rate_limits.wrong_credential(client_host(request)))
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    request.state.caller = caller
    return caller


async def is_still_signed_in(request: Request) -> bool:
    """Say whether who made a request may still be answered; while nobody can tell, they may."""
    try:
        return await services_of(request).accounts.callers.is_signed_in(request.state.caller)
    except DatabaseUnavailableError:
        return True


CurrentCaller = Annotated[Caller, Depends(_current_caller)]


def may(permission: Permission) -> Any:  # noqa: ANN401 -- as FastAPI's own Depends
    """Return the dependency that gives the actor of a route, if the caller has the permission.

    A route has no other way to an actor, so none can forget to ask.
    """

    async def actor(caller: CurrentCaller) -> Actor:
        if permission not in caller.permissions:
            raise ApiError(ErrorCode.FORBIDDEN, f"This needs the permission `{permission}`.")
        return caller.acting(permission)

    return Depends(actor)


async def _page(
    limit: Annotated[int, Query(ge=1, le=100, description="How many rows at most.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=2000, description="`meta.nextCursor` of the page before.")
    ] = None,
) -> PageRequest:
    return PageRequest(limit, cursor)


WantedPage = Annotated[PageRequest, Depends(_page)]
