"""Owns what routes are given: the services, the actor, the page that is asked for."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis

from api.errors import ApiError, invalid
from api.turn_starter import TurnStarter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.pages import PageRequest, decode_cursor
from services.auth.service import AuthService
from services.auth.tokens import AccessTokens
from services.chats.service import ChatService
from services.database import Database
from services.events.feed import EventFeed
from services.turns.acceptance import TurnAcceptance
from services.turns.cancellation import TurnCancellation
from services.turns.ending import TurnEnding


@dataclass(frozen=True, slots=True)
class ApiServices:
    """Everything that routes call, made once by the composition root."""

    database: Database
    redis: Redis
    access_tokens: AccessTokens
    auth: AuthService
    chats: ChatService
    acceptance: TurnAcceptance
    cancellation: TurnCancellation
    ending: TurnEnding
    feed: EventFeed
    starter: TurnStarter
    answer_wait_s: float


# Async although nothing waits: FastAPI hands plain functions to a thread.
async def _services(request: Request) -> ApiServices:
    services: ApiServices = request.app.state.services
    return services


Services = Annotated[ApiServices, Depends(_services)]

_bearer = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="An access token from `/auth/login`."
)


async def _current_actor(
    services: Services,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Actor:
    actor = None if credentials is None else services.access_tokens.read(credentials.credentials)
    if actor is None:
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    return actor


CurrentActor = Annotated[Actor, Depends(_current_actor)]

Limit = Annotated[int, Query(ge=1, le=100, description="How many rows at most.")]
Cursor = Annotated[
    str | None, Query(max_length=200, description="`meta.nextCursor` of the page before.")
]


def page_request(limit: int, cursor: str | None, *, parts: int) -> PageRequest:
    """Return the page that is asked for; `parts` is how many ids the list's cursor holds.

    Errors: ApiError for a cursor that was never given out.
    """
    if cursor is None:
        return PageRequest(limit)
    after = decode_cursor(cursor, parts=parts)
    if after is None:
        raise invalid("query.cursor", "This cursor was not given out by this list.")
    return PageRequest(limit, after)
