"""Owns HEAD: answered as GET is, without a body.

Event streams are left out: one would be opened for nobody.
"""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STREAMS: Final = "/events"


def takes_head(path: str) -> bool:
    """Say whether a path that takes GET takes HEAD too."""
    return not path.endswith(_STREAMS)


class HeadMiddleware:
    """Lets routes take HEAD for GET. The innermost: all others see the method that was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as GET, and of the answer only the head."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or not takes_head(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            # By the method the server knows that no body belongs to the length that is named.
            scope["method"] = "HEAD"
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_head)
        finally:
            scope["method"] = "HEAD"
