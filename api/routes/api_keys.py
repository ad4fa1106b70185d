"""Owns the caller's API keys over HTTP."""

from functools import partial
from typing import Annotated, assert_never

from fastapi import Request, Response

from api.dependencies import CurrentCaller, Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, created, envelope, list_envelope
from api.errors import ApiError, invalid, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import ApiKeyIdPath, IdempotencyKey
from schema.actors import Actor
from schema.api_keys import ApiKey, CreateApiKeyRequest, CreatedApiKey
from schema.errors import ErrorCode
from schema.permissions import Permission
from services.resources import Conflict, LimitReached
from services.users.api_keys import ApiKeyRefusal

router = GroupRouter("/users/me/api-keys", tag="users")

Reader = Annotated[Actor, may(Permission.ACCOUNT_READ)]
Writer = Annotated[Actor, may(Permission.ACCOUNT_WRITE)]

_refused = partial(refused, noun="API key")


@router.get(
    "",
    summary="List one's API keys",
    responses=error_docs(*SIGNED_IN),
)
async def list_api_keys(
    request: Request, actor: Reader, services: Services, page: WantedPage
) -> ListEnvelope[ApiKey]:
    """Return the caller's keys that are not revoked, newest first, each by its first characters."""
    return list_envelope(request, await services.accounts.api_keys.list_keys(actor, page))


@router.post(
    "",
    status_code=201,
    summary="Make an API key",
    responses=error_docs(*SIGNED_IN, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_api_key(
    request: Request,
    response: Response,
    body: CreateApiKeyRequest,
    actor: Writer,
    caller: CurrentCaller,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[CreatedApiKey]:
    """Make a key, which is told in this answer and never again.

    Without `permissions` it may do all but administration and changes of the account. Sent again
    with the same idempotency key, the answer has `key: null`, since the key is stored nowhere; a
    key that was lost so is to be revoked. API keys themselves can't make keys.
    """
    key = value_or_raise(
        await services.accounts.api_keys.create(actor, body, caller=caller, key=idempotency_key),
        _not_made,
    )
    return created(request, response, key, at=f"{request.url.path}/{key.id}")


@router.get(
    "/{key_id}",
    summary="Read an API key",
    responses=error_docs(*OF_ONE),
)
async def get_api_key(
    request: Request, key_id: ApiKeyIdPath, actor: Reader, services: Services
) -> Envelope[ApiKey]:
    """Return one of the caller's keys by its first characters, unless it is revoked."""
    return envelope(
        request, value_or_raise(await services.accounts.api_keys.get(actor, key_id), _refused)
    )


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Revoke an API key",
    responses=error_docs(*OF_ONE),
)
async def revoke_api_key(key_id: ApiKeyIdPath, actor: Writer, services: Services) -> Response:
    """End a key; one that is revoked is not there any more."""
    value_or_raise(await services.accounts.api_keys.revoke(actor, key_id), _refused)
    return Response(status_code=204)


def _not_made(refusal: ApiKeyRefusal | LimitReached | Conflict) -> ApiError:
    match refusal:
        case ApiKeyRefusal.BY_KEY:
            return ApiError(ErrorCode.FORBIDDEN, "An API key can't make keys. Sign in to make one.")
        case ApiKeyRefusal.MISSING_PERMISSION:
            return ApiError(ErrorCode.FORBIDDEN, "A key can't do more than whoever makes it.")
        case LimitReached(limit):
            message = f"Your plan allows {limit:,} API keys. Revoke some of them first."
            return ApiError(ErrorCode.FORBIDDEN, message)
        case ApiKeyRefusal.INVALID_EXPIRY:
            return invalid("body.expiresAt", "This has to be in the future, by ten years at most.")
        case Conflict():
            return refused(refusal, "API key")
        case _:
            assert_never(refusal)
