"""Owns chats over HTTP."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.documentation import OF_ONE, SIGNED_IN, error_docs
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import refused, value_or_raise
from api.group_router import GroupRouter
from api.parameters import ChatIdPath, IdempotencyKey, IfMatch
from schema.actors import Actor
from schema.chats import (
    ChangeChatRequest,
    Chat,
    ChatFilter,
    ChatSort,
    CreateChatRequest,
    Message,
)
from schema.errors import ErrorCode
from schema.permissions import Permission

router = GroupRouter("/chats", tag="chats")

Reader = Annotated[Actor, may(Permission.CHATS_READ)]
Writer = Annotated[Actor, may(Permission.CHATS_WRITE)]

_refused = partial(refused, noun="chat")


@router.post(
    "",
    status_code=201,
    summary="Begin a chat",
    responses=error_docs(*SIGNED_IN, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def create_chat(
    request: Request,
    response: Response,
    body: CreateChatRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Chat]:
    """Make an empty chat."""
    chat = value_or_raise(await services.chats.create(actor, body, key=idempotency_key), _refused)
    return created(request, response, chat, at=f"{request.url.path}/{chat.id}")


@router.get("", summary="List chats", responses=error_docs(*SIGNED_IN))
async def list_chats(
    request: Request,
    actor: Reader,
    services: Services,
    page: WantedPage,
    chosen: Annotated[ChatFilter, Query()],
    sort: ChatSort = ChatSort.CREATED_LAST,
) -> ListEnvelope[Chat]:
    """Return the caller's chats, newest first unless sorted otherwise."""
    return list_envelope(request, await services.chats.list_chats(actor, chosen, page, sort=sort))


@router.get("/{chat_id}", summary="Read a chat", responses=error_docs(*OF_ONE))
async def get_chat(
    request: Request,
    response: Response,
    chat_id: ChatIdPath,
    actor: Reader,
    services: Services,
) -> Envelope[Chat]:
    """Return one chat."""
    chat = value_or_raise(await services.chats.get(actor, chat_id), _refused)
    return tagged(request, response, chat)


@router.patch(
    "/{chat_id}",
    summary="Rename or archive a chat",
    responses=error_docs(*OF_ONE, ErrorCode.PRECONDITION_FAILED),
)
async def change_chat(
    request: Request,
    response: Response,
    chat_id: ChatIdPath,
    body: ChangeChatRequest,
    actor: Writer,
    services: Services,
    versions: IfMatch,
) -> Envelope[Chat]:
    """Change a chat's title, or put it into the archive or back."""
    chat = value_or_raise(
        await services.chats.change(actor, chat_id, body, versions=versions), _refused
    )
    return tagged(request, response, chat)


@router.delete(
    "/{chat_id}", status_code=204, summary="Delete a chat", responses=error_docs(*OF_ONE)
)
async def delete_chat(chat_id: ChatIdPath, actor: Writer, services: Services) -> Response:
    """Delete a chat with its messages, turns and streams; a turn under way is stopped."""
    turns = value_or_raise(await services.chats.delete(actor, chat_id), _refused)
    await services.temporal.cancel_turns(turns.unfinished)
    await services.turns.erasure.erase(turns.all)
    return Response(status_code=204)


@router.get("/{chat_id}/messages", summary="List messages", responses=error_docs(*OF_ONE))
async def list_messages(
    request: Request, chat_id: ChatIdPath, actor: Reader, services: Services, page: WantedPage
) -> ListEnvelope[Message]:
    """Return the messages of a chat in the order of the conversation, oldest first."""
    found = value_or_raise(await services.chats.list_messages(actor, chat_id, page), _refused)
    return list_envelope(request, found)
