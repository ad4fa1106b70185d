"""Sign-up, sign-in and sign-out."""

import hashlib
from typing import Annotated

from fastapi import Request, Response

from api.access import (
    AUTH_LIMITED,
    LOGIN_LIMITED,
    RATE_LIMITED_DOCS,
    REPEATED_SIGN_UP_LIMITED,
    limited,
    may,
)
from api.dependencies import Accounts
from api.envelope import Envelope, created, envelope, tagged
from api.errors import account_or_raise, value_or_raise
from api.openapi import SIGNED_IN, error_docs
from api.parameters import IdempotencyKey
from api.routing import GroupRouter
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.users import LogInRequest, RefreshRequest, Session, SignUpRequest, User
from services.audit import current_origin
from services.rate_limits.rules import Group

router = GroupRouter("/auth", tag="auth")


@router.post(
    "/signup",
    name="auth.signup",
    status_code=201,
    summary="Create an account",
    responses=error_docs(ErrorCode.FORBIDDEN, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT)
    | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED, REPEATED_SIGN_UP_LIMITED],
)
async def sign_up(
    request: Request,
    response: Response,
    body: SignUpRequest,
    accounts: Accounts,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Session]:
    """Create an account and sign in to it. An email address has one account.

    Retrying with the same idempotency key and body signs in to the created account; keys are
    separate for each email address.
    """
    session = value_or_raise(await accounts.sign_in.sign_up(body, key=idempotency_key), "account")
    return created(request, response, session, at=request.url_for("account.get").path)


@router.post(
    "/login",
    name="auth.login",
    summary="Sign in",
    responses=error_docs(ErrorCode.UNAUTHENTICATED) | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED, LOGIN_LIMITED],
)
async def log_in(request: Request, body: LogInRequest, accounts: Accounts) -> Envelope[Session]:
    """Exchange an email address and a password for tokens."""
    return envelope(request, value_or_raise(await accounts.sign_in.log_in(body), "account"))


@router.post(
    "/refresh",
    name="auth.refresh",
    summary="Refresh the tokens",
    responses=error_docs(ErrorCode.UNAUTHENTICATED) | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED],
)
async def refresh(request: Request, body: RefreshRequest, accounts: Accounts) -> Envelope[Session]:
    """Exchange a refresh token for new tokens. Reusing one revokes all tokens issued from it.

    The same client may repeat the request within 10 seconds, and gets the same refresh token: two
    tabs may refresh at once.
    """
    refreshed = await accounts.sign_in.refresh(body.refresh_token, client=_client_of(request))
    return envelope(request, value_or_raise(refreshed, "account"))


@router.post(
    "/logout",
    name="auth.logout",
    status_code=204,
    summary="Sign out",
    responses=error_docs() | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED],
)
async def log_out(body: RefreshRequest, accounts: Accounts) -> Response:
    """End the session that the refresh token belongs to."""
    await accounts.sign_in.log_out(body.refresh_token)
    return Response(status_code=204)


@router.get(
    "/me",
    name="auth.me",
    summary="Get the signed-in account",
    responses=error_docs(*SIGNED_IN) | RATE_LIMITED_DOCS,
    dependencies=[limited(Group.REQUESTS)],
)
async def me(
    request: Request,
    response: Response,
    actor: Annotated[Actor, may(Permission.ACCOUNT_READ)],
    accounts: Accounts,
) -> Envelope[User]:
    """Return the account that the token belongs to."""
    return tagged(request, response, account_or_raise(await accounts.users.get(actor)))


def _client_of(request: Request) -> bytes:
    """Return a hash of what tells one client from another: its network and its name."""
    client = f"{current_origin().network}\n{request.headers.get('user-agent', '')}"
    return hashlib.sha256(client.encode("utf-8", "surrogatepass")).digest()
