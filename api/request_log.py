"""One log line for each request: which route, for whom, with what outcome.

Never a path, a query, a body or a header: they hold what people wrote, and secrets.
"""

import time
from typing import Any, Final
from uuid import UUID

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import method_of, route_of

_log = structlog.get_logger(__name__)

_PROBES: Final = "/api/v1/health/"


class RequestLogMiddleware:
    """Logs each request at its end, a stream's when its client has it. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, turn_id = time.perf_counter(), 500, None

        async def send_noted(message: Message) -> None:
            nonlocal status, turn_id
            if message["type"] == "http.response.start":
                status = message["status"]
                turn_id = Headers(raw=message["headers"]).get("x-turn-id")
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            route = route_of(scope)
            log = _log.debug if route.startswith(_PROBES) else _log.info
            log(
                "request",
                method=method_of(scope),
                route=route,
                status=status,
                ms=round((time.perf_counter() - begun) * 1000, 1),
                **_ids(scope, turn_id),
            )


def _ids(scope: Scope, turn_id: str | None) -> dict[str, Any]:
    """Return the ids by which a line is found."""
    caller = scope.get("state", {}).get("caller")
    ids = {
        "request_id": scope.get("everturn.request_id"),
        "user_id": None if caller is None else str(caller.user_id),
        "turn_id": turn_id or _uuid(scope.get("path_params", {}).get("turn_id")),
    }
    return {name: value for name, value in ids.items() if value is not None}


def _uuid(text: str | None) -> str | None:
    """Return an id of a path; what is none may be anything."""
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        return None
