"""The caller's own account: profile, preferences, export, deletion, sessions and API keys."""

from collections.abc import Iterator
from typing import IO, Annotated, Final

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.access import CurrentCaller, OpenStream, limit_guesses, limited, may
from api.dependencies import Accounts, Services
from api.envelope import Envelope, ListEnvelope, created, envelope, list_envelope, tagged
from api.errors import account_or_raise, value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, USER_EVENT_STREAM, error_docs
from api.parameters import (
    ApiKeyIdPath,
    IdempotencyKey,
    IfMatch,
    RequestedPage,
    ResumeUserEventsAfter,
    SessionIdPath,
)
from api.routing import GroupRouter
from api.sse import event_stream
from schema.actors import Actor
from schema.api_keys import ApiKey, CreateApiKeyRequest, CreatedApiKey
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.preferences import Preferences, PreferencesRequest
from schema.users import ChangeUserRequest, DeleteUserRequest, SignedInSession, User
from services.rate_limits.rules import Group

router = GroupRouter("/users/me", tag="users")

Reader = Annotated[Actor, may(Permission.ACCOUNT_READ)]
Writer = Annotated[Actor, may(Permission.ACCOUNT_WRITE)]

_CHUNK_BYTES: Final = 64 * 1024
_READING: Final = error_docs(*SIGNED_IN)


@router.get("", name="account.get", summary="Get my account", responses=_READING)
async def get_me(
    request: Request, response: Response, actor: Reader, accounts: Accounts
) -> Envelope[User]:
    """Return the account that the token belongs to."""
    return tagged(request, response, account_or_raise(await accounts.users.get(actor)))


@router.patch(
    "",
    name="account.update",
    summary="Update my account",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_me(
    request: Request,
    response: Response,
    body: ChangeUserRequest,
    actor: Writer,
    caller: CurrentCaller,
    accounts: Accounts,
    versions: IfMatch,
) -> Envelope[User]:
    """Change the display name, the email address or the password.

    The latter two require `currentPassword`. A new password ends all other sessions; their access
    tokens are rejected within seconds. A new address is `pendingEmail` until the link that is sent
    there is used; where the server sends no mail, it applies at once.
    """
    await limit_guesses(request, caller, body.current_password)
    changed = await accounts.users.change(
        actor, body, versions=versions, session_id=caller.session_id
    )
    return tagged(request, response, account_or_raise(changed))


@router.delete(
    "",
    name="account.delete",
    status_code=204,
    summary="Delete my account",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT),
)
async def delete_me(
    request: Request,
    actor: Writer,
    caller: CurrentCaller,
    services: Services,
    body: DeleteUserRequest | None = None,
) -> Response:
    """Delete the account and everything in it, and cancel its running turns.

    This can't be undone. An account with a password requires `currentPassword`; one that signs in
    through an external provider doesn't. The last administrator can't be deleted, and API keys
    can't delete accounts.
    """
    password = None if body is None else body.current_password
    await limit_guesses(request, caller, password)
    deletion = services.accounts.deletion
    turns = account_or_raise(await deletion.delete(actor, password, by_key=caller.by_key))
    await services.temporal.cancel_turns(turns.unfinished)
    await services.turns.erasure.erase(turns.all)
    await services.turns.events.erase_user(actor.user_id)
    return Response(status_code=204)


@router.get(
    "/events",
    name="account.events",
    summary="Stream the events of all my chats",
    response_class=Response,
    responses={
        200: {
            "description": "Events across chats, or those after the given one.",
            "content": USER_EVENT_STREAM,
        },
        **_READING,
    },
    dependencies=[limited(Group.STREAMS)],
)
async def follow_chats(
    request: Request,
    actor: Annotated[Actor, may(Permission.CHATS_READ)],
    services: Services,
    after: ResumeUserEventsAfter,
    slot: OpenStream,
) -> Response:
    """Stream what happens in all chats: turns that run and end, new titles, suggested memories.

    `resync` is the first event, and comes where others may be missing: read the lists then.
    """
    await slot.take()
    return event_stream(request, services.turns.user_feed.stream(actor.user_id, after=after))


@router.get(
    "/preferences", name="preferences.get", summary="Get my preferences", responses=_READING
)
async def get_preferences(
    request: Request, response: Response, actor: Reader, accounts: Accounts
) -> Envelope[Preferences]:
    """Return the preferences; null stands for the default."""
    return tagged(request, response, await accounts.preferences.get(actor))


@router.put(
    "/preferences",
    name="preferences.replace",
    summary="Replace my preferences",
    responses=error_docs(*SIGNED_IN, ErrorCode.PRECONDITION_FAILED),
)
async def put_preferences(
    request: Request,
    response: Response,
    body: PreferencesRequest,
    actor: Writer,
    accounts: Accounts,
    versions: IfMatch,
) -> Envelope[Preferences]:
    """Replace all preferences; omitted fields return to their defaults."""
    stored = await accounts.preferences.put(actor, body, versions=versions)
    return tagged(request, response, value_or_raise(stored, "set of preferences"))


@router.get(
    "/export",
    name="account.export",
    summary="Export my account",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "All data of the account at one point in time; `data` holds a list for "
            "each kind of resource.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **_READING,
    },
    dependencies=[limited(Group.EXPORTS)],
)
async def export_me(request: Request, actor: Reader, accounts: Accounts) -> StreamingResponse:
    """Return all data of the account as one JSON document to save."""
    file = await accounts.exports.write(actor)
    meta = envelope(request, None).meta.model_dump_json(by_alias=True)
    return StreamingResponse(
        _chunks(file, end=f',"meta":{meta}}}'),
        media_type="application/json",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": 'attachment; filename="everturn-export.json"',
        },
    )


def _chunks(file: IO[bytes], *, end: str) -> Iterator[bytes]:
    with file:
        yield b'{"data":'
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
        yield end.encode()


@router.get("/sessions", name="sessions.list", summary="List my sessions", responses=_READING)
async def list_sessions(
    request: Request, actor: Reader, caller: CurrentCaller, accounts: Accounts, page: RequestedPage
) -> ListEnvelope[SignedInSession]:
    """Return the caller's active sessions, newest first. API keys can't list them."""
    sessions = await accounts.sessions.list_sessions(actor, page, caller=caller)
    return list_envelope(request, value_or_raise(sessions, "session"))


@router.delete(
    "/sessions",
    name="sessions.endOthers",
    status_code=204,
    summary="End my other sessions",
    responses=error_docs(*SIGNED_IN),
)
async def end_other_sessions(actor: Writer, caller: CurrentCaller, accounts: Accounts) -> Response:
    """End all sessions except the one of this request.

    Their access tokens are rejected at once, and their event streams end within half a minute.
    """
    value_or_raise(await accounts.sessions.end_others(actor, caller=caller), "session")
    return Response(status_code=204)


@router.delete(
    "/sessions/{session_id}",
    name="sessions.end",
    status_code=204,
    summary="End a session",
    responses=error_docs(*OF_ONE),
)
async def end_session(
    session_id: SessionIdPath, actor: Writer, caller: CurrentCaller, accounts: Accounts
) -> Response:
    """End one of the caller's sessions, e.g. of a lost device.

    Its access tokens are rejected at once, and its event streams end within half a minute.
    """
    value_or_raise(await accounts.sessions.end(actor, session_id, caller=caller), "session")
    return Response(status_code=204)


@router.get(
    "/api-keys",
    name="apiKeys.list",
    summary="List my API keys",
    responses=_READING,
)
async def list_api_keys(
    request: Request, actor: Reader, accounts: Accounts, page: RequestedPage
) -> ListEnvelope[ApiKey]:
    """Return the caller's active keys, newest first, each with its first characters only."""
    return list_envelope(request, await accounts.api_keys.list_keys(actor, page))


@router.post(
    "/api-keys",
    name="apiKeys.create",
    status_code=201,
    summary="Create an API key",
    responses=error_docs(*SIGNED_IN, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_api_key(
    request: Request,
    response: Response,
    body: CreateApiKeyRequest,
    actor: Writer,
    caller: CurrentCaller,
    accounts: Accounts,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[CreatedApiKey]:
    """Create a key. The response is the only one that contains it.

    Without `permissions` the key may do everything but administration and changes to the account.
    A retry with the same idempotency key returns `key: null`, because the key isn't stored; revoke
    a key that was lost this way. API keys can't create API keys.
    """
    result = await accounts.api_keys.create(actor, body, caller=caller, key=idempotency_key)
    key = value_or_raise(result, "API key")
    return created(request, response, key, at=f"{request.url.path}/{key.id}")


@router.get(
    "/api-keys/{key_id}",
    name="apiKeys.get",
    summary="Get an API key",
    responses=error_docs(*OF_ONE),
)
async def get_api_key(
    request: Request, key_id: ApiKeyIdPath, actor: Reader, accounts: Accounts
) -> Envelope[ApiKey]:
    """Return one of the caller's active keys, with its first characters only."""
    key = value_or_raise(await accounts.api_keys.get(actor, key_id), "API key")
    return envelope(request, key)


@router.delete(
    "/api-keys/{key_id}",
    name="apiKeys.revoke",
    status_code=204,
    summary="Revoke an API key",
    responses=error_docs(*OF_ONE),
)
async def revoke_api_key(key_id: ApiKeyIdPath, actor: Writer, accounts: Accounts) -> Response:
    """Revoke a key for good."""
    value_or_raise(await accounts.api_keys.revoke(actor, key_id), "API key")
    return Response(status_code=204)
