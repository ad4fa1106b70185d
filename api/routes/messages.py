"""Messages: reading one, and deleting one with all that follows it."""

from typing import Annotated

from fastapi import Request, Response

from api.access import may
from api.dependencies import Messages, Services
from api.envelope import Envelope, envelope
from api.errors import value_or_raise
from api.openapi import OF_ONE, error_docs
from api.parameters import MessageIdPath
from api.routing import GroupRouter
from schema.actors import Actor
from schema.chats import Message
from schema.errors import ErrorCode
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
