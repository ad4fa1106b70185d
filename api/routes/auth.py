"""Owns signing up, in and out."""

from typing import Annotated, assert_never

from fastapi import Request, Response

from api.dependencies import Services, may
from api.documentation import SIGNED_IN, error_docs
from api.envelope import Envelope, created, envelope, tagged
from api.errors import ApiError, account_gone, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IdempotencyKey
from api.rate_limit_answers import RATE_LIMITED_DOCS
from api.rate_limits import AUTH_LIMITED, LOGIN_LIMITED, limited
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.users import LogInRequest, RefreshRequest, Session, SignUpRequest, User
from services.auth.service import SignInRefusal
from services.rate_limits.rules import Group
from services.resources import Conflict

router = GroupRouter("/auth", tag="auth")


@router.post(
    "/signup",
    status_code=201,
    summary="Make an account",
    responses=error_docs(ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT) | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED],
)
async def sign_up(
    request: Request,
    response: Response,
    body: SignUpRequest,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Session]:
    """Make an account and sign it in. An e-mail address has one account.

    The same request with the same idempotency key signs the account that it made in again; a key
    counts for the e-mail address that it came with.
    """
    session = value_or_raise(
        await services.accounts.sign_in.sign_up(body, key=idempotency_key), _refused
    )
    return created(request, response, session, at=request.url_for("get_me").path)


@router.post(
    "/login",
    summary="Sign in",
    responses=error_docs(ErrorCode.UNAUTHENTICATED) | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED, LOGIN_LIMITED],
)
async def log_in(request: Request, body: LogInRequest, services: Services) -> Envelope[Session]:
    """Exchange an e-mail address and its password for tokens."""
    return envelope(request, value_or_raise(await services.accounts.sign_in.log_in(body), _refused))


@router.post(
    "/refresh",
    summary="Renew the tokens",
    responses=error_docs(ErrorCode.UNAUTHENTICATED) | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED],
)
async def refresh(request: Request, body: RefreshRequest, services: Services) -> Envelope[Session]:
    """Exchange a refresh token for new tokens; using one twice ends all that came of it."""
    return envelope(
        request,
        value_or_raise(await services.accounts.sign_in.refresh(body.refresh_token), _refused),
    )


@router.post(
    "/logout",
    status_code=204,
    summary="Sign out",
    responses=error_docs() | RATE_LIMITED_DOCS,
    dependencies=[AUTH_LIMITED],
)
async def log_out(body: RefreshRequest, services: Services) -> Response:
    """End the sign-in that the refresh token belongs to."""
    await services.accounts.sign_in.log_out(body.refresh_token)
    return Response(status_code=204)


@router.get(
    "/me",
    summary="Who am I?",
    responses=error_docs(*SIGNED_IN) | RATE_LIMITED_DOCS,
    dependencies=[limited(Group.REQUESTS)],
)
async def me(
    request: Request,
    response: Response,
    actor: Annotated[Actor, may(Permission.ACCOUNT_READ)],
    services: Services,
) -> Envelope[User]:
    """Return the account that the token speaks for."""
    user = value_or_raise(await services.accounts.users.get(actor), account_gone)
    return tagged(request, response, user)


def _refused(refusal: SignInRefusal) -> ApiError:
    match refusal:
        case SignInRefusal.EMAIL_TAKEN:
            return ApiError(
                ErrorCode.CONFLICT, "There is an account with this e-mail address already."
            )
        case SignInRefusal.KEY_REUSED:
            return refused(Conflict.KEY_REUSED, "account")
        case SignInRefusal.WRONG_CREDENTIALS:
            return ApiError(ErrorCode.UNAUTHENTICATED, "The e-mail address or password is wrong.")
        case SignInRefusal.INVALID_TOKEN:
            return ApiError(
                ErrorCode.UNAUTHENTICATED, "The refresh token is not valid any more; sign in again."
            )
        case _:
            assert_never(refusal)
