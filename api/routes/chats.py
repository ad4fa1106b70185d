"""Owns chats over HTTP."""

from fastapi import APIRouter, Request

from api.dependencies import CurrentActor, Cursor, Limit, Services, page_request
from api.envelope import Envelope, ListEnvelope, envelope, list_envelope
from api.errors import error_docs, unreachable
from api.parameters import ChatIdPath
from schema.chats import Chat, CreateChatRequest, Message
from schema.errors import ErrorCode
from schema.result import Err

router = APIRouter(prefix="/chats", tags=["chats"])

_OF_ONE_CHAT = error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND)


@router.post(
    "",
    status_code=201,
    summary="Begin a chat",
    responses=error_docs(ErrorCode.UNAUTHENTICATED),
)
async def create_chat(
    request: Request, body: CreateChatRequest, actor: CurrentActor, services: Services
) -> Envelope[Chat]:
    """Make an empty chat."""
    return envelope(request, await services.chats.create(actor, body))


@router.get("", summary="List chats", responses=error_docs(ErrorCode.UNAUTHENTICATED))
async def list_chats(
    request: Request,
    actor: CurrentActor,
    services: Services,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> ListEnvelope[Chat]:
    """Return the caller's chats, newest first."""
    page = await services.chats.list_chats(actor, page_request(limit, cursor, parts=1))
    return list_envelope(request, page)


@router.get("/{chat_id}", summary="Read a chat", responses=_OF_ONE_CHAT)
async def get_chat(
    request: Request, chat_id: ChatIdPath, actor: CurrentActor, services: Services
) -> Envelope[Chat]:
    """Return one chat."""
    result = await services.chats.get(actor, chat_id)
    if isinstance(result, Err):
        raise unreachable(result.error, "chat")
    return envelope(request, result.value)


@router.get("/{chat_id}/messages", summary="List messages", responses=_OF_ONE_CHAT)
async def list_messages(
    request: Request,
    chat_id: ChatIdPath,
    actor: CurrentActor,
    services: Services,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> ListEnvelope[Message]:
    """Return the messages of a chat in the order of the conversation, oldest first."""
    page = page_request(limit, cursor, parts=2)
    result = await services.chats.list_messages(actor, chat_id, page)
    if isinstance(result, Err):
        raise unreachable(result.error, "chat")
    return list_envelope(request, result.value)
