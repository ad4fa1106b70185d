"""Routers: one for each group of paths, and what all paths share."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from schema.wire import count_json_items

API_PREFIX: Final = "/api/v1"
MAX_BODY_ITEMS: Final = 10_000
"""How many items the JSON of a body may have: the errors of 80,000 took three seconds."""
_STREAMS: Final = "/events"


class TooManyItemsError(Exception):
    """A body has more items than may be read."""


def check_items(body: bytes, *, most: int) -> None:
    """Check how many items the JSON of a body has. Errors: TooManyItemsError."""
    if count_json_items(body, most=most) > most:
        raise TooManyItemsError


class _JsonRequest(Request):
    async def json(self) -> Any:  # noqa: ANN401 -- any JSON value
        check_items(await self.body(), most=MAX_BODY_ITEMS)
        return await super().json()


class JsonRoute(APIRoute):
    """A route that reads no JSON with too many items."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return bounded


class GroupRouter(APIRouter):
    """A router for the paths below `prefix`, which may hold parameters, in this API version.

    It skips other paths at once: comparing each request with every route of every group took up to
    a quarter of the time of a read.
    """

    def __init__(self, prefix: str, *, tag: str) -> None:
        super().__init__(prefix=f"{API_PREFIX}{prefix}", tags=[tag], route_class=JsonRoute)
        self._beginning = self.prefix.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether one of the routes takes the request."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if not path.startswith(self._beginning):
            return Match.NONE, {}
        return super().matches(scope)


def operation_id(route: APIRoute) -> str:
    """Return a route's `operationId`: its explicit name, e.g. `messages.create`."""
    return route.name


def takes_head(path: str) -> bool:
    """Return whether a path that takes GET also takes HEAD; event streams do not."""
    return not path.endswith(_STREAMS)
