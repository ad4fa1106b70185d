"""Owns what routes are given: the services, the actor, the page that is asked for."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis

from api.errors import ApiError
from api.turn_starter import TurnStarter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.pages import PageRequest
from schema.permissions import Permission
from services.auth.callers import Caller, Callers
from services.auth.service import AuthService
from services.auth.standing import Standings
from services.chats.service import ChatService
from services.database import Database
from services.events.feed import EventFeed
from services.turns.acceptance import TurnAcceptance
from services.turns.cancellation import TurnCancellation
from services.turns.ending import TurnEnding
from services.turns.erasure import Erasure


@dataclass(frozen=True, slots=True)
class ApiServices:
    """Everything that routes call, made once by the composition root."""

    database: Database
    redis: Redis
    callers: Callers
    standings: Standings
    auth: AuthService
    chats: ChatService
    acceptance: TurnAcceptance
    cancellation: TurnCancellation
    ending: TurnEnding
    erasure: Erasure
    feed: EventFeed
    starter: TurnStarter
    answer_wait_s: float


# Async although nothing waits: FastAPI hands plain functions to a thread.
async def _services(request: Request) -> ApiServices:
    services: ApiServices = request.app.state.services
    return services


Services = Annotated[ApiServices, Depends(_services)]

_bearer = HTTPBearer(
    auto_error=False,
    description="An access token from `/auth/login`, an API key, or a token of an outside issuer.",
)


async def _current_caller(
    services: Services,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Caller:
    caller = None if credentials is None else await services.callers.of(credentials.credentials)
    if caller is None:
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    return caller


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
