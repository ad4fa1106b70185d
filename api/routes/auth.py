"""Sign-up, sign-in and sign-out; password reset and email verification."""

import hashlib
from typing import Annotated

from fastapi import Request, Response

from api.access import (
    AUTH_LIMITED,
    LOGIN_LIMITED,
    PASSWORD_RESET_LIMITED,
    RATE_LIMITED_DOCS,
    REPEATED_SIGN_UP_LIMITED,
    VERIFICATION_LIMITED,
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
from schema.users import (
    ConfirmEmailRequest,
    ConfirmPasswordResetRequest,
    LogInRequest,
    PasswordResetRequest,
    RefreshRequest,
    SentLink,
    Session,
    SignUpRequest,
    User,
)
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

    Where the server sends mail, the address gets a link that verifies it.

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


@router.post(
    "/password-reset",
    name="auth.requestPasswordReset",
    status_code=202,
    summary="Request a password reset",
    responses=error_docs(ErrorCode.FORBIDDEN) | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED, PASSWORD_RESET_LIMITED],
)
async def request_password_reset(
    request: Request, body: PasswordResetRequest, accounts: Accounts
) -> Envelope[SentLink]:
    """Send a link for a new password to the address, if an account signs in with it.

    The response is the same for every address; it is 403 where the server sends no mail. The link
    leads to the front end, is valid for an hour, and works once.
    """
    sent = await accounts.password_reset.request(body.email)
    return envelope(request, value_or_raise(sent, "account"))


@router.post(
    "/password-reset/confirm",
    name="auth.resetPassword",
    status_code=204,
    summary="Reset the password",
    responses=error_docs() | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED],
)
async def reset_password(body: ConfirmPasswordResetRequest, accounts: Accounts) -> Response:
    """Set a new password with the token of the link, and end all sessions of the account.

    API keys stay valid unless `revokeApiKeys` is set. The account's address is notified. A client
    that got no response may repeat the request within ten minutes.
    """
    value_or_raise(await accounts.password_reset.confirm(body), "account")
    return Response(status_code=204)


@router.post(
    "/email-verification",
    name="auth.sendVerification",
    status_code=202,
    summary="Send the verification link again",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT) | RATE_LIMITED_DOCS,
    dependencies=[VERIFICATION_LIMITED],
)
async def send_verification(
    request: Request, actor: Annotated[Actor, may(Permission.ACCOUNT_WRITE)], accounts: Accounts
) -> Envelope[SentLink]:
    """Send a link to the caller's pending address, or to the one that is not verified yet.

    The link leads to the front end and is valid for 24 hours.
    """
    return envelope(request, value_or_raise(await accounts.verification.send(actor), "account"))


@router.post(
    "/email-verification/confirm",
    name="auth.verifyEmail",
    status_code=204,
    summary="Verify an email address",
    responses=error_docs(ErrorCode.CONFLICT) | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED],
)
async def verify_email(body: ConfirmEmailRequest, accounts: Accounts) -> Response:
    """Verify the address that the token was sent to; a pending address replaces the present one."""
    value_or_raise(await accounts.verification.confirm(body.token), "account")
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
