"""Owns refusing bodies that are too large for their route, before any of them is kept.

A body that says how large it is is refused by its word; Starlette counts those that do not.
"""

from collections.abc import Callable

from fastapi import Request
from starlette.datastructures import Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import ApiError, refusal
from schema.errors import ErrorCode


class BodyLimitMiddleware:
    """Gives each request the limit of its route.

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
            # Starlette's own middleware would answer such a request in plain text.
            response = refusal(Request(scope), ApiError(ErrorCode.PAYLOAD_TOO_LARGE))
            await response(scope, receive, send)
            return
        counted = RequestBodyLimitMiddleware(self._app, max_body_size=limit)
        await counted(scope, receive, send)


def _declared_size(scope: Scope) -> int:
    declared = Headers(scope=scope).get("content-length", "")
    return int(declared) if declared.isdecimal() else 0
