"""Owns what people do with their own account over HTTP."""

from collections.abc import Iterator
from typing import IO, Annotated, Final, assert_never

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.dependencies import CurrentCaller, Services, may
from api.documentation import SIGNED_IN, error_docs
from api.envelope import Envelope, envelope, tagged
from api.errors import ApiError, account_gone, invalid, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import IfMatch
from api.rate_limits import limited
from schema.actors import Actor
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.preferences import Preferences, PreferencesRequest
from schema.users import ChangeUserRequest, User
from services.rate_limits.rules import Group
from services.resources import Conflict, Unreachable
from services.users.preferences import PreferencesRefusal
from services.users.service import AccountRefusal, DeletionRefusal

router = GroupRouter("/users/me", tag="users")

Reader = Annotated[Actor, may(Permission.ACCOUNT_READ)]
Writer = Annotated[Actor, may(Permission.ACCOUNT_WRITE)]

_PIECE: Final = 64 * 1024
_READING: Final = error_docs(*SIGNED_IN)


@router.get("", summary="Read one's account", responses=_READING)
async def get_me(
    request: Request, response: Response, actor: Reader, services: Services
) -> Envelope[User]:
    """Return the account that the token speaks for."""
    user = value_or_raise(await services.accounts.users.get(actor), account_gone)
    return tagged(request, response, user)


@router.patch(
    "",
    summary="Change one's account",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT, ErrorCode.PRECONDITION_FAILED),
)
async def change_me(
    request: Request,
    response: Response,
    body: ChangeUserRequest,
    actor: Writer,
    caller: CurrentCaller,
    services: Services,
    versions: IfMatch,
) -> Envelope[User]:
    """Change one's name, e-mail address or password.

    The latter two want `currentPassword`. A new password ends all other sign-ins; their access
    tokens are refused within seconds.
    """
    user = value_or_raise(
        await services.accounts.users.change(
            actor, body, versions=versions, session_id=caller.session_id
        ),
        _not_changed,
    )
    return tagged(request, response, user)


@router.delete(
    "",
    status_code=204,
    summary="Delete one's account",
    responses=error_docs(*SIGNED_IN, ErrorCode.CONFLICT),
)
async def delete_me(actor: Writer, services: Services) -> Response:
    """Delete the account with all that its owner ever wrote, and stop what is under way.

    There is no way back. No password is asked for: an API key can do it only if it was given the
    permission `account:write` by name. The last administrator can't.
    """
    turns = value_or_raise(await services.accounts.deletion.delete(actor), _not_deleted)
    await services.temporal.cancel_turns(turns.unfinished)
    await services.turns.erasure.erase(turns.all)
    return Response(status_code=204)


@router.get("/preferences", summary="Read one's preferences", responses=_READING)
async def get_preferences(
    request: Request, response: Response, actor: Reader, services: Services
) -> Envelope[Preferences]:
    """Return how the caller wants to be answered; null stands for what there is by default."""
    return tagged(request, response, await services.accounts.preferences.get(actor))


@router.put(
    "/preferences",
    summary="Store one's preferences",
    responses=error_docs(*SIGNED_IN, ErrorCode.PRECONDITION_FAILED),
)
async def put_preferences(
    request: Request,
    response: Response,
    body: PreferencesRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[Preferences]:
    """Store all preferences anew; what is left out becomes as it is by default."""
    preferences = value_or_raise(
        await services.accounts.preferences.put(actor, body, versions=versions), _not_stored
    )
    return tagged(request, response, preferences)


@router.get(
    "/export",
    summary="Export one's account",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "All that is kept of the caller, as of one moment, in the envelope of "
            "every answer: `data` has a list for each kind of thing.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **_READING,
    },
    dependencies=[limited(Group.EXPORTS)],
)
async def export_me(request: Request, actor: Reader, services: Services) -> StreamingResponse:
    """Return everything that is kept of the caller as one JSON document to be saved."""
    file = await services.accounts.exports.write(actor)
    meta = envelope(request, None).meta.model_dump_json(by_alias=True)
    return StreamingResponse(
        _pieces(file, end=f',"meta":{meta}}}'),
        media_type="application/json",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": 'attachment; filename="everturn-export.json"',
        },
    )


def _pieces(file: IO[bytes], *, end: str) -> Iterator[bytes]:
    with file:
        yield b'{"data":'
        while piece := file.read(_PIECE):
            yield piece
        yield end.encode()


def _not_changed(refusal: AccountRefusal | Conflict | Unreachable) -> ApiError:
    match refusal:
        case AccountRefusal.PASSWORD_MISSING:
            return invalid("body.currentPassword", "This wants the current password beside it.")
        case AccountRefusal.PASSWORD_WRONG:
            return ApiError(ErrorCode.FORBIDDEN, "The current password is wrong.")
        case AccountRefusal.NO_PASSWORD:
            return ApiError(
                ErrorCode.CONFLICT, "This account has no password: an outside issuer signs it in."
            )
        case AccountRefusal.EMAIL_TAKEN:
            return ApiError(
                ErrorCode.CONFLICT, "There is an account with this e-mail address already."
            )
        case Conflict():
            return refused(refusal, "account")
        case Unreachable():
            return account_gone(refusal)
        case _:
            assert_never(refusal)


def _not_stored(refusal: PreferencesRefusal | Conflict) -> ApiError:
    match refusal:
        case PreferencesRefusal.UNKNOWN_MODEL:
            return invalid("body.defaultModel", "There is no such model in your plan.")
        case Conflict():
            return refused(refusal, "set of preferences")
        case _:
            assert_never(refusal)


def _not_deleted(refusal: DeletionRefusal | Unreachable) -> ApiError:
    match refusal:
        case DeletionRefusal.LAST_ADMINISTRATOR:
            return ApiError(
                ErrorCode.CONFLICT,
                "This is the last administrator. Make somebody else one before you go.",
            )
        case Unreachable():
            return account_gone(refusal)
        case _:
            assert_never(refusal)
