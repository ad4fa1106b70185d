"""Owns sending a message: the start of a turn, and its answer."""

from typing import Annotated, Any, Final, assert_never

from fastapi import Request, Response

from api.answering import ANSWERS, answer_turn
from api.dependencies import Services, may
from api.documentation import OF_ONE, error_docs
from api.errors import ApiError, invalid, refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import ChatIdPath, IdempotencyKey
from api.rate_limits import limited
from schema.actors import Actor
from schema.chats import SendMessageRequest
from schema.errors import ErrorCode
from schema.permissions import Permission
from services.rate_limits.rules import Group
from services.resources import Conflict, Unreachable
from services.turns.acceptance import AcceptanceRefusal, TooLong

router = GroupRouter("/chats", tag="chats")


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **ANSWERS,
    **error_docs(
        *OF_ONE,
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
    result = await services.turns.acceptance.accept(actor, chat_id, body, key=idempotency_key)
    accepted = value_or_raise(result, _refused)
    return await answer_turn(request, services, actor, accepted, stream=body.stream)


def _refused(  # noqa: PLR0911 -- one for each refusal
    refusal: AcceptanceRefusal | TooLong | Conflict | Unreachable,
) -> ApiError:
    match refusal:
        case Conflict() | Unreachable():
            return refused(refusal, "chat")
        case AcceptanceRefusal.BLANK:
            return invalid("body.content", "The message is blank.")
        case TooLong(length, limit):
            sentence = f"The message has {length:,} characters; it can have {limit:,} at most."
            return invalid("body.content", sentence)
        case AcceptanceRefusal.UNKNOWN_MODEL:
            return invalid("body.model", "There is no such model here.")
        case AcceptanceRefusal.MODEL_NOT_ALLOWED:
            return ApiError(ErrorCode.FORBIDDEN, "Your plan does not allow this model.")
        case AcceptanceRefusal.BUSY:
            return ApiError(
                ErrorCode.TURN_IN_PROGRESS,
                "A turn is under way in this chat. Wait for it, stop it, or send `ifBusy` with "
                "`enqueue` or `interrupt`.",
            )
        case AcceptanceRefusal.QUEUE_FULL:
            return ApiError(ErrorCode.CONFLICT, "Too many messages wait in this chat.")
        case _:
            assert_never(refusal)
