"""Owns which limit a route has; what clients are told of it is in `api.rate_limit_answers`."""

from typing import Any, Final

from fastapi import Depends, Request

from api.dependencies import CurrentCaller, client_host, services_of
from api.rate_limit_answers import tell
from schema.users import LogInRequest
from services.rate_limits.rules import Group


class _PerUser:
    """Counts a request for the user who makes it."""

    def __init__(self, group: Group) -> None:
        self.group = group

    async def __call__(self, request: Request, caller: CurrentCaller) -> None:
        if _closest_limit(request, self) is self:
            rates = caller.account.entitlements.rates
            limits = services_of(request).operations.rate_limits
            tell(request, await limits.request(caller.user_id, rates, self.group))


async def _per_address(request: Request) -> None:
    limits = services_of(request).operations.rate_limits
    tell(request, await limits.auth_request(client_host(request)))


# Its name is that of the routes' own parameter: another one would make FastAPI nest the body.
async def _per_account(request: Request, body: LogInRequest) -> None:
    tell(request, await services_of(request).operations.rate_limits.login(body.email))


def limited(group: Group) -> Any:  # noqa: ANN401 -- as FastAPI types what Depends returns
    """Return the dependency that limits a route, a router or all that a router includes.

    Of several the one closest to the route counts, so that a request has one round trip.
    """
    return Depends(_PerUser(group))


AUTH_LIMITED: Final = Depends(_per_address)
"""Limits a route that anybody may ask, by the client's address."""

LOGIN_LIMITED: Final = Depends(_per_account)
"""Limits signing in by the account; stands behind `AUTH_LIMITED`, which may refuse before."""


def _closest_limit(request: Request, otherwise: _PerUser) -> _PerUser:
    """Return the limit that stands closest to the route; those of routers stand before it."""
    own = [dependency.call for dependency in request.scope["route"].dependant.dependencies]
    return next((limit for limit in reversed(own) if isinstance(limit, _PerUser)), otherwise)
