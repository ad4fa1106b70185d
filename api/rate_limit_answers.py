"""Owns what clients are told of a rate limit: the headers, and the 429.

The headers are those of draft-ietf-httpapi-ratelimit-headers-06, the last one with a field for
each number, which is what clients read today.
"""

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.envelope import ErrorEnvelope
from api.errors import RATE_LIMIT_HEADERS_KEY, ApiError
from api.metrics import metrics_of
from schema.errors import ErrorCode
from services.rate_limits.limiter import Decision

_DECISION_KEY: Final = "everturn.rate_limit"

_HEADER_DOCS: Final = {
    "RateLimit-Limit": "How much the limit allows within its window.",
    "RateLimit-Remaining": "How much of it is left.",
    "RateLimit-Reset": "Seconds until more is allowed.",
    "Retry-After": "Seconds after which the same request is allowed.",
}
RATE_LIMITED_DOCS: Final[dict[int | str, dict[str, Any]]] = {
    429: {
        "model": ErrorEnvelope,
        "description": "Too many requests; `Retry-After` says when to try again.",
        "headers": {
            name: {"description": text, "schema": {"type": "integer", "minimum": 0}}
            for name, text in _HEADER_DOCS.items()
        },
    }
}
"""The OpenAPI entry of the refusal, for `responses` of whatever is limited."""


class RateLimitHeadersMiddleware:
    """Adds what a limit said to the answer, whatever the route then answers.

    Plain ASGI: streams pass through it untouched.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and the answer back with its headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_limit(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Mapping[str, str] = scope.get(RATE_LIMIT_HEADERS_KEY, {})
                if headers:
                    MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_with_limit)


def tell(request: Request, decision: Decision | None) -> None:
    """Note what the answer's headers are to say, and refuse what is too much.

    None says nothing: limits are switched off. Errors: ApiError, `RATE_LIMITED`.
    """
    if decision is None:
        return
    told: Decision | None = request.scope.get(_DECISION_KEY)
    if told is None or not decision.allowed or decision.remaining < told.remaining:
        request.scope[_DECISION_KEY] = decision
        request.scope[RATE_LIMIT_HEADERS_KEY] = _headers(decision)
    if not decision.allowed:
        limit = decision.limit
        metrics_of(request).refusals.labels(limit.group).inc()
        raise ApiError(
            ErrorCode.RATE_LIMITED,
            f"Too many requests: {limit.amount} are allowed in {_seconds(limit.window)} s here. "
            f"Try again in {_seconds(decision.reset_after)} s.",
        )


def _headers(decision: Decision) -> dict[str, str]:
    limit, reset_s = decision.limit, str(_seconds(decision.reset_after))
    headers = {
        "RateLimit-Limit": str(limit.amount),
        "RateLimit-Remaining": str(decision.remaining),
        "RateLimit-Reset": reset_s,
        "RateLimit-Policy": f"{limit.amount};w={_seconds(limit.window)}",
    }
    return headers if decision.allowed else {**headers, "Retry-After": reset_s}


def _seconds(duration: timedelta) -> int:
    """Return whole seconds, rounded up: who waits for so long has waited long enough."""
    return max(1, math.ceil(duration.total_seconds()))
