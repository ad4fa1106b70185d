"""Messages: reading one, feedback on it, and deleting it with all that follows."""

from typing import Annotated

from fastapi import Request, Response

from api.access import may
from api.dependencies import FeedbackOnAnswers, Messages, Services
from api.envelope import Envelope, envelope
from api.errors import value_or_raise
from api.openapi import OF_ONE, error_docs
from api.parameters import MessageIdPath
from api.routing import GroupRouter
from schema.actors import Actor
from schema.chats import Message
from schema.errors import ErrorCode
from schema.feedback import Feedback, GiveFeedbackRequest
from schema.permissions import Permission

router = GroupRouter("/messages", tag="chats")


@router.get(
    "/{message_id}", name="messages.get", summary="Get a message", responses=error_docs(*OF_ONE)
)
async def get_message(
    request: Request,
    message_id: MessageIdPath,
    actor: Annotated[Actor, may(Permission.CHATS_READ)],
    messages: Messages,
) -> Envelope[Message]:
    """Return one message, with its siblings."""
    return envelope(request, value_or_raise(await messages.get(actor, message_id), "message"))


@router.delete(
    "/{message_id}",
    name="messages.delete",
    status_code=204,
    summary="Delete a message",
    responses=error_docs(*OF_ONE, ErrorCode.TURN_IN_PROGRESS),
)
async def delete_message(
    message_id: MessageIdPath,
    actor: Annotated[Actor, may(Permission.CHATS_WRITE)],
    services: Services,
) -> Response:
    """Delete a message with all messages that follow it.

    A question whose answer is deleted can be answered again: regenerate its turn.
    """
    turns = value_or_raise(await services.messages.delete(actor, message_id), "message")
    await services.turns.erasure.erase(turns.all)
    return Response(status_code=204)


@router.put(
    "/{message_id}/feedback",
    name="feedback.give",
    summary="Give feedback on an answer",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT),
)
async def give_feedback(
    request: Request,
    message_id: MessageIdPath,
    body: GiveFeedbackRequest,
    actor: Annotated[Actor, may(Permission.CHATS_WRITE)],
    feedback: FeedbackOnAnswers,
) -> Envelope[Feedback]:
    """Rate one of the caller's answers; this replaces earlier feedback on it."""
    given = await feedback.give(actor, message_id, body)
    return envelope(request, value_or_raise(given, "message"))


@router.delete(
    "/{message_id}/feedback",
    name="feedback.withdraw",
    status_code=204,
    summary="Withdraw feedback",
    responses=error_docs(*OF_ONE),
)
async def withdraw_feedback(
    message_id: MessageIdPath,
    actor: Annotated[Actor, may(Permission.CHATS_WRITE)],
    feedback: FeedbackOnAnswers,
) -> Response:
    """Delete the feedback on an answer, if there is any."""
    value_or_raise(await feedback.withdraw(actor, message_id), "message")
    return Response(status_code=204)
