"""Owns chats over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.dependencies import Services, WantedPage, may
from api.envelope import Envelope, ListEnvelope, list_envelope, tagged
from api.errors import error_docs, refused
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
from schema.result import Err

router = APIRouter(prefix="/chats", tags=["chats"])

Reader = Annotated[Actor, may(Permission.CHATS_READ)]
Writer = Annotated[Actor, may(Permission.CHATS_WRITE)]

_OF_ALL = error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN)
_OF_ONE = error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND)


@router.post(
    "",
    status_code=201,
    summary="Begin a chat",
    responses=error_docs(
        ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.IDEMPOTENCY_CONFLICT
    ),
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
    result = await services.chats.create(actor, body, key=idempotency_key)
    if isinstance(result, Err):
        raise refused(result.error, "chat")
    return tagged(request, response, result.value)


@router.get("", summary="List chats", responses=_OF_ALL)
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


@router.get("/{chat_id}", summary="Read a chat", responses=_OF_ONE)
async def get_chat(
    request: Request,
    response: Response,
    chat_id: ChatIdPath,
    actor: Reader,
    services: Services,
) -> Envelope[Chat]:
    """Return one chat."""
    result = await services.chats.get(actor, chat_id)
    if isinstance(result, Err):
        raise refused(result.error, "chat")
    return tagged(request, response, result.value)


@router.patch(
    "/{chat_id}",
    summary="Rename or archive a chat",
    responses=error_docs(
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_FOUND,
        ErrorCode.PRECONDITION_FAILED,
    ),
)
async def change_chat(
    request: Request,
    response: Response,
    chat_id: ChatIdPath,
    body: ChangeChatRequest,
    actor: Writer,
    services: Services,
    version: IfMatch,
) -> Envelope[Chat]:
    """Change a chat's title, or put it into the archive or back."""
    result = await services.chats.change(actor, chat_id, body, version=version)
    if isinstance(result, Err):
        raise refused(result.error, "chat")
    return tagged(request, response, result.value)


@router.delete("/{chat_id}", status_code=204, summary="Delete a chat", responses=_OF_ONE)
async def delete_chat(chat_id: ChatIdPath, actor: Writer, services: Services) -> Response:
    """Delete a chat with its messages, turns and streams; a turn under way is stopped."""
    result = await services.chats.delete(actor, chat_id)
    if isinstance(result, Err):
        raise refused(result.error, "chat")
    await services.starter.cancel_all(result.value)
    await services.erasure.erase(result.value)
    return Response(status_code=204)


@router.get("/{chat_id}/messages", summary="List messages", responses=_OF_ONE)
async def list_messages(
    request: Request, chat_id: ChatIdPath, actor: Reader, services: Services, page: WantedPage
) -> ListEnvelope[Message]:
    """Return the messages of a chat in the order of the conversation, oldest first."""
    result = await services.chats.list_messages(actor, chat_id, page)
    if isinstance(result, Err):
        raise refused(result.error, "chat")
    return list_envelope(request, result.value)
