"""Owns sending a message: the start of a turn, and its answer."""

from typing import Annotated, Any, Final, assert_never

from fastapi import APIRouter, Request, Response

from api.answering import ANSWERS, answer_turn
from api.dependencies import Services, may
from api.errors import ApiError, error_docs, invalid, refused
from api.parameters import ChatIdPath, IdempotencyKey
from api.rate_limits import limited
from schema.actors import Actor
from schema.chats import SendMessageRequest
from schema.errors import ErrorCode
from schema.permissions import Permission
from schema.result import Err
from services.rate_limits.rules import Group
from services.refusals import Unreachable
from services.turns.acceptance import Refusal

router = APIRouter(prefix="/chats", tags=["chats"])


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **ANSWERS,
    **error_docs(
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_FOUND,
        ErrorCode.TURN_IN_PROGRESS,
        ErrorCode.CONFLICT,
        ErrorCode.IDEMPOTENCY_CONFLICT,
        ErrorCode.MODEL_UNAVAILABLE,
    ),
}


@router.post(
    "/{chat_id}/messages",
    summary="Send a message",
    responses=_RESPONSES,
    dependencies=[limited(Group.MESSAGES)],
)
async def send_message(
    request: Request,
    chat_id: ChatIdPath,
    body: SendMessageRequest,
    actor: Annotated[Actor, may(Permission.CHATS_WRITE)],
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Store a message and answer it in a turn of its own, which nothing that happens here stops."""
    result = await services.acceptance.accept(actor, chat_id, body, idempotency_key=idempotency_key)
    if isinstance(result, Err):
        raise _refused(result.error)
    return await answer_turn(request, services, actor, result.value, stream=body.stream)


def _refused(refusal: Refusal | Unreachable) -> ApiError:  # noqa: PLR0911 -- one for each refusal
    match refusal:
        case Unreachable():
            return refused(refusal, "chat")
        case Refusal.BLANK:
            return invalid("body.content", "The message is blank.")
        case Refusal.TOO_LONG:
            return invalid("body.content", "The message is too long.")
        case Refusal.UNKNOWN_MODEL:
            return invalid("body.model", "There is no such model here.")
        case Refusal.MODEL_NOT_ALLOWED:
            return ApiError(ErrorCode.FORBIDDEN, "Your plan does not allow this model.")
        case Refusal.BUSY:
            return ApiError(
                ErrorCode.TURN_IN_PROGRESS,
                "A turn is under way in this chat. Wait for it, stop it, or send `ifBusy` with "
                "`enqueue` or `interrupt`.",
            )
        case Refusal.QUEUE_FULL:
            return ApiError(ErrorCode.CONFLICT, "Too many messages wait in this chat.")
        case Refusal.KEY_REUSED:
            return ApiError(
                ErrorCode.IDEMPOTENCY_CONFLICT,
                "This idempotency key was used for another request.",
            )
        case _:
            assert_never(refusal)
