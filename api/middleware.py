"""Middleware for every request: its ID, its size, and HEAD in place of GET.

Plain ASGI: event streams pass through untouched.
"""

import re
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ApiError, refusal
from api.routing import takes_head
from schema.errors import ErrorCode
from services.audit import Origin, network_of, set_origin

_REQUEST_ID: Final = "x-request-id"
_USABLE_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIdMiddleware:
    """Gives each request its ID: the client's own or a new one, logged and sent back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its ID, and send the response with it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get(_REQUEST_ID, "")
        request_id = offered if _USABLE_ID.fullmatch(offered) else str(uuid4())
        scope["everturn.request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        set_origin(
            Origin(
                request_id=request_id,
                network=_network(scope),
                user_agent=headers.get("user-agent"),
            )
        )

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_REQUEST_ID] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def _network(scope: Scope) -> str | None:
    """Return the client's network; a client of a Unix socket has none."""
    client = scope.get("client")
    return None if client is None else network_of(client[0])


class BodyLimitMiddleware:
    """Refuses bodies that are too large for their route before they are read.

    A body that declares its size is refused by that; Starlette counts the others.
    Units: `limit_of` returns bytes of the body.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        if _declared_size(scope) > limit:
            # Starlette's own middleware would respond in plain text.
            response = refusal(Request(scope), ApiError(ErrorCode.PAYLOAD_TOO_LARGE))
            await response(scope, receive, send)
            return
        counted = RequestBodyLimitMiddleware(self._app, max_body_size=limit)
        await counted(scope, receive, send)


def _declared_size(scope: Scope) -> int:
    # The server takes any number of zeros before it, `int` only so many digits.
    declared = Headers(scope=scope).get("content-length", "").lstrip("0")
    return int(declared[:20]) if declared.isdecimal() else 0


class HeadMiddleware:
    """Lets routes take HEAD for GET. The innermost: all others see the method that was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as GET, and send the response without its body."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or not takes_head(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            # The server needs the method to know that no body follows the declared length.
            scope["method"] = "HEAD"
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_head)
        finally:
            scope["method"] = "HEAD"
