"""Owns refusing bodies that say how large they are; Starlette counts those that do not."""

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import ApiError, refusal
from schema.errors import ErrorCode


class DeclaredBodyLimitMiddleware:
    """Refuses a body by its `Content-Length`, before any of it is read.

    Starlette's own middleware would answer such a request in plain text.
    """

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self._app = app
        self._max_body_size = max_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and self._is_too_large(Headers(scope=scope)):
            response = refusal(Request(scope), ApiError(ErrorCode.PAYLOAD_TOO_LARGE))
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_too_large(self, headers: Headers) -> bool:
        declared = headers.get("content-length", "")
        return declared.isdecimal() and int(declared) > self._max_body_size
