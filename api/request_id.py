"""Owns the request id: taken from the client or made, logged with everything, sent back."""

import re
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.audit import Origin, network_of, set_origin

_HEADER: Final = "x-request-id"
_USABLE: Final = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIdMiddleware:
    """Gives each request its id. Plain ASGI: streams pass through it untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id, and the answer back with it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get(_HEADER, "")
        request_id = offered if _USABLE.fullmatch(offered) else str(uuid4())
        scope["everturn.request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        set_origin(Origin(request_id=request_id, network=_network(scope)))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def _network(scope: Scope) -> str | None:
    """Return the network that the client is in; a client of a Unix socket is in none."""
    client = scope.get("client")
    return None if client is None else network_of(client[0])
