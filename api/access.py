"""Access: authentication, permissions and rate limits.

The rate limit headers are those of draft-ietf-httpapi-ratelimit-headers-06, the last draft with a
field for each number, which is what clients read today.
"""

import math
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dependencies import services_of
from api.envelope import ErrorResponse
from api.error_messages import (
    MISSING_PERMISSION,
    TOO_MANY_REQUESTS,
    TOO_MANY_STREAMS,
)
from api.errors import RATE_LIMIT_HEADERS_KEY, ApiError
from api.metrics import metrics_of
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.users import LogInRequest, PasswordResetRequest, SignUpRequest
from services.auth.callers import Caller
from services.database import DatabaseUnavailableError
from services.events.open_streams import StreamLease
from services.rate_limits.limiter import Decision
from services.rate_limits.rules import Group

_DECISION_KEY: Final = "everturn.rate_limit"
_STREAM_RETRY_S: Final = 10

_HEADER_DOCS: Final = {
    "RateLimit-Limit": "The number of requests allowed in the window.",
    "RateLimit-Remaining": "The number of requests left in the window.",
    "RateLimit-Reset": "Seconds until the window resets.",
    "Retry-After": "Seconds to wait before retrying.",
}
RATE_LIMITED_DOCS: Final[dict[int | str, dict[str, Any]]] = {
    429: {
        "model": ErrorResponse,
        "description": "Too many requests; see `Retry-After`.",
        "headers": {
            name: {"description": text, "schema": {"type": "integer", "minimum": 0}}
            for name, text in _HEADER_DOCS.items()
        },
    }
}
"""The OpenAPI entry of the refusal, for `responses` of every limited route."""

_bearer = HTTPBearer(
    auto_error=False,
    description="An access token from `/auth/login`, an API key, or an external issuer's token.",
)


def client_host(request: Request) -> str | None:
    """Return the client's address, if it is known."""
    return None if request.client is None else request.client.host


async def _current_caller(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Caller:
    if credentials is None:
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    services = services_of(request)
    caller = await services.accounts.callers.authenticate(credentials.credentials)
    if caller is None:
        # Counts for invalid credentials only: other clients at this address are not affected.
        limits = services.operations.rate_limits
        enforce(request, await limits.wrong_credential(client_host(request)))
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    request.state.caller = caller
    return caller


CurrentCaller = Annotated[Caller, Depends(_current_caller)]


async def is_still_signed_in(request: Request) -> bool:
    """Return whether the caller may still be answered; True while the database is unavailable."""
    try:
        return await services_of(request).accounts.callers.is_signed_in(request.state.caller)
    except DatabaseUnavailableError:
        return True


def may(permission: Permission) -> Any:  # noqa: ANN401 -- as FastAPI's own Depends
    """Return the dependency that provides a route's actor, if the caller has the permission.

    Routes get their actor in no other way, so that none can forget the check.
    """

    async def actor(caller: CurrentCaller) -> Actor:
        if permission not in caller.permissions:
            raise ApiError(ErrorCode.FORBIDDEN, MISSING_PERMISSION.format(permission))
        return caller.acting(permission)

    return Depends(actor)


class _PerUser:
    """Counts a request for the user who makes it."""

    def __init__(self, group: Group) -> None:
        self.group = group

    async def __call__(self, request: Request, caller: CurrentCaller) -> None:
        if _closest_limit(request, self) is self:
            rates = caller.account.entitlements.rates
            limits = services_of(request).operations.rate_limits
            enforce(request, await limits.request(caller.user_id, rates, self.group))


class StreamSlot:
    """The place of a request among its user's open streams; given back when it is answered."""

    def __init__(self, request: Request, caller: Caller) -> None:
        self._request = request
        self._caller = caller
        self._lease: StreamLease | None = None

    async def take(self) -> None:
        """Count a stream, before anything is stored for it. Errors: ApiError, `RATE_LIMITED`."""
        open_streams = services_of(self._request).turns.open_streams
        if open_streams is None:
            return
        limit = self._caller.account.entitlements.max_open_streams
        self._lease = await open_streams.open(self._caller.user_id, limit=limit)
        if self._lease is None:
            wait_s = str(_STREAM_RETRY_S)
            self._request.scope[RATE_LIMIT_HEADERS_KEY] = {"Retry-After": wait_s}
            metrics_of(self._request).refusals.labels(Group.STREAMS).inc()
            raise ApiError(ErrorCode.RATE_LIMITED, TOO_MANY_STREAMS.format(limit, wait_s))

    def leave(self) -> None:
        """Give the place back, if there is one."""
        open_streams = services_of(self._request).turns.open_streams
        if open_streams is not None and self._lease is not None:
            open_streams.close(self._lease)


async def _stream_slot(request: Request, caller: CurrentCaller) -> AsyncIterator[StreamSlot]:
    slot = StreamSlot(request, caller)
    try:
        yield slot
    finally:
        slot.leave()


OpenStream = Annotated[StreamSlot, Depends(_stream_slot)]
"""The slot of a route that may answer with an event stream: taken by the route, left at its end."""


async def _per_address(request: Request) -> None:
    limits = services_of(request).operations.rate_limits
    enforce(request, await limits.auth_request(client_host(request)))


async def _per_reader(request: Request) -> None:
    limits = services_of(request).operations.rate_limits
    enforce(request, await limits.shared_read(client_host(request)))


# Named as the routes' own parameter: with another name FastAPI would nest the body.
async def _per_account(request: Request, body: LogInRequest) -> None:
    enforce(request, await services_of(request).operations.rate_limits.login(body.email))


async def _per_repeated_sign_up(request: Request, body: SignUpRequest) -> None:
    # With a key it may be a retry, which signs in by the password.
    if "idempotency-key" in request.headers:
        enforce(request, await services_of(request).operations.rate_limits.login(body.email))


async def _per_reset_account(request: Request, body: PasswordResetRequest) -> None:
    limits = services_of(request).operations.rate_limits
    enforce(request, await limits.password_reset(body.email))


async def _per_mailed_user(request: Request, caller: CurrentCaller) -> None:
    limits = services_of(request).operations.rate_limits
    enforce(request, await limits.verification(caller.user_id))


async def _verified(request: Request, caller: CurrentCaller) -> None:
    if services_of(request).accounts.require_verified_email and not caller.account.is_verified:
        raise ApiError(ErrorCode.EMAIL_NOT_VERIFIED)


async def limit_guesses(request: Request, caller: Caller, password: str | None) -> None:
    """Count a password that confirms a change: a stolen token must not help to guess it."""
    if password is not None:
        limits = services_of(request).operations.rate_limits
        enforce(request, await limits.password_guess(caller.user_id))


def limited(group: Group) -> Any:  # noqa: ANN401 -- as FastAPI types what Depends returns
    """Return the dependency that limits a route, or all routes of a router, for each user.

    Of several the one closest to the route counts, so that a request has one round trip.
    """
    return Depends(_PerUser(group))


AUTH_LIMITED: Final = Depends(_per_address)
"""Limits a public route by the client's address."""

SHARED_LIMITED: Final = Depends(_per_reader)
"""Limits reads of shared branches by the client's address, apart from sign-ins."""

LOGIN_LIMITED: Final = Depends(_per_account)
"""Limits sign-in attempts for an account; stands behind `AUTH_LIMITED`."""

PASSWORD_RESET_LIMITED: Final = Depends(_per_reset_account)
"""Limits mails to the account that a public route names; stands behind `AUTH_LIMITED`."""

VERIFICATION_LIMITED: Final = Depends(_per_mailed_user)
"""Limits mails that a signed-in user asks for."""

VERIFIED_EMAIL: Final = Depends(_verified)
"""Refuses to start a turn while the caller's email is not verified, where that is required."""

REPEATED_SIGN_UP_LIMITED: Final = Depends(_per_repeated_sign_up)
"""Counts sign-ups that may sign in as attempts to do so."""


def _closest_limit(request: Request, otherwise: _PerUser) -> _PerUser:
    """Return the limit that stands closest to the route; those of routers stand before it."""
    own = [dependency.call for dependency in request.scope["route"].dependant.dependencies]
    return next((limit for limit in reversed(own) if isinstance(limit, _PerUser)), otherwise)


def enforce(request: Request, decision: Decision | None) -> None:
    """Store the headers of a limiter's decision, and refuse the request if it says so.

    None means that limits are switched off. Errors: ApiError, `RATE_LIMITED`.
    """
    if decision is None:
        return
    stored: Decision | None = request.scope.get(_DECISION_KEY)
    if stored is None or not decision.allowed or decision.remaining < stored.remaining:
        request.scope[_DECISION_KEY] = decision
        request.scope[RATE_LIMIT_HEADERS_KEY] = _headers(decision)
    if not decision.allowed:
        limit = decision.limit
        metrics_of(request).refusals.labels(limit.group).inc()
        window_s, wait_s = _seconds(limit.window), _seconds(decision.reset_after)
        message = TOO_MANY_REQUESTS.format(limit.amount, window_s, wait_s)
        raise ApiError(ErrorCode.RATE_LIMITED, message)


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
    """Return whole seconds, rounded up, so that waiting this long is enough."""
    return max(1, math.ceil(duration.total_seconds()))


class RateLimitHeadersMiddleware:
    """Adds the headers of the limiter's decision to every response. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and send the response with the headers."""
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
