"""Chats and their messages."""

from typing import Annotated

from fastapi import Query, Request, Response

from api.access import VERIFIED_EMAIL, CurrentCaller, OpenStream, limited, may
from api.dependencies import Chats, Messages, Services
from api.envelope import Envelope, ListEnvelope, created, list_envelope, tagged
from api.errors import value_or_raise
from api.openapi import OF_ONE, SIGNED_IN, error_docs
from api.parameters import ChatIdPath, IdempotencyKey, IfMatch, RequestedPage
from api.routing import GroupRouter
from api.turns import ANSWER_DOCS, answer_turn
from schema.actors import Actor
from schema.chats import (
    ChangeChatRequest,
    Chat,
    ChatFilter,
    ChatSort,
    ChatSummary,
    ChooseLeafRequest,
    CreateChatRequest,
    ForkChatRequest,
    Message,
    MessageFilter,
    MessageSort,
    SendMessageRequest,
)
from schema.errors import ErrorCode
from schema.events import ChatChange
from schema.permissions import Permission
from schema.shares import CreatedShare, Share, ShareRequest
from schema.turn_inspection import ListedTurn, OwnTurnFilter, TurnSort
from services.events.writer import chat_news
from services.rate_limits.rules import Group

router = GroupRouter("/chats", tag="chats")

Reader = Annotated[Actor, may(Permission.CHATS_READ)]
Writer = Annotated[Actor, may(Permission.CHATS_WRITE)]


@router.post(
    "",
    name="chats.create",
    status_code=201,
    summary="Create a chat",
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
    """Create a chat: an empty one, or with `messages` one that continues a conversation."""
    create = services.copies.import_chat if body.messages else services.chats.create
    chat = value_or_raise(await create(actor, body, key=idempotency_key), "chat")
    await services.turns.events.announce(
        chat_news(actor.user_id, chat.id, ChatChange.CREATED, title=chat.title)
    )
    return created(request, response, chat, at=f"{request.url.path}/{chat.id}")


@router.get("", name="chats.list", summary="List chats", responses=error_docs(*SIGNED_IN))
async def list_chats(
    request: Request,
    actor: Reader,
    chats: Chats,
    page: RequestedPage,
    chosen: Annotated[ChatFilter, Query()],
    sort: ChatSort = ChatSort.CREATED_LAST,
) -> ListEnvelope[Chat]:
    """Return the caller's chats, newest first by default.

    Archived chats are left out unless `archived` is set to `true` or `any`. Pinned ones have no
    place of their own: list them with `pinned=true`, and the others with `pinned=false`.
    """
    return list_envelope(request, await chats.list_chats(actor, chosen, page, sort=sort))


@router.get("/{chat_id}", name="chats.get", summary="Get a chat", responses=error_docs(*OF_ONE))
async def get_chat(
    request: Request, response: Response, chat_id: ChatIdPath, actor: Reader, chats: Chats
) -> Envelope[Chat]:
    """Return one chat."""
    return tagged(request, response, value_or_raise(await chats.get(actor, chat_id), "chat"))


@router.patch(
    "/{chat_id}",
    name="chats.update",
    summary="Update a chat",
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
    """Change a chat's title or tags, pin or unpin it, archive or unarchive it.

    This leaves `updatedAt` as it is.
    """
    changed = await services.chats.change(actor, chat_id, body, versions=versions)
    chat = value_or_raise(changed, "chat")
    await services.turns.events.announce(
        chat_news(actor.user_id, chat.id, ChatChange.UPDATED, title=chat.title)
    )
    return tagged(request, response, chat)


@router.delete(
    "/{chat_id}",
    name="chats.delete",
    status_code=204,
    summary="Delete a chat",
    responses=error_docs(*OF_ONE),
)
async def delete_chat(chat_id: ChatIdPath, actor: Writer, services: Services) -> Response:
    """Delete a chat with its messages, turns and streams; a running turn is cancelled."""
    turns = value_or_raise(await services.chats.delete(actor, chat_id), "chat")
    await services.temporal.cancel_turns(turns.unfinished)
    await services.turns.erasure.erase(turns.all)
    await services.turns.events.announce(chat_news(actor.user_id, chat_id, ChatChange.DELETED))
    return Response(status_code=204)


@router.post(
    "/{chat_id}/fork",
    name="chats.fork",
    status_code=201,
    summary="Copy a branch into a new chat",
    responses=error_docs(*OF_ONE, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def fork_chat(
    request: Request,
    response: Response,
    chat_id: ChatIdPath,
    body: ForkChatRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[Chat]:
    """Copy a branch up to a message into a new chat, which continues from there.

    Copies cost nothing, and count neither as messages sent nor as turns.
    """
    forked = await services.copies.fork(actor, chat_id, body, key=idempotency_key)
    chat = value_or_raise(forked, "chat")
    await services.turns.events.announce(
        chat_news(actor.user_id, chat.id, ChatChange.CREATED, title=chat.title)
    )
    at = f"{request.url.path.removesuffix(f'/{chat_id}/fork')}/{chat.id}"
    return created(request, response, chat, at=at)


@router.post(
    "/{chat_id}/shares",
    name="shares.create",
    status_code=201,
    summary="Share a branch",
    responses=error_docs(*OF_ONE, ErrorCode.CONFLICT, ErrorCode.IDEMPOTENCY_CONFLICT),
)
async def share_branch(
    request: Request,
    response: Response,
    chat_id: ChatIdPath,
    body: ShareRequest,
    actor: Writer,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Envelope[CreatedShare]:
    """Create a link by which anyone can read a branch up to a message, and nothing else.

    What follows the message later is not shared. The token is returned only once.
    """
    shared = await services.shares.create(actor, chat_id, body, key=idempotency_key)
    share = value_or_raise(shared, "chat")
    at = request.url.path.partition("/chats/")[0]
    return created(request, response, share, at=f"{at}/shares/{share.id}")


@router.get(
    "/{chat_id}/shares",
    name="shares.list",
    summary="List a chat's shares",
    responses=error_docs(*OF_ONE),
)
async def list_shares(
    request: Request, chat_id: ChatIdPath, actor: Reader, services: Services, page: RequestedPage
) -> ListEnvelope[Share]:
    """Return the shares of a chat, newest first, those that have expired included."""
    listed = await services.shares.list_shares(actor, chat_id, page)
    return list_envelope(request, value_or_raise(listed, "chat"))


@router.get(
    "/{chat_id}/messages",
    name="messages.list",
    summary="List messages",
    responses=error_docs(*OF_ONE),
)
async def list_messages(
    request: Request,
    chat_id: ChatIdPath,
    actor: Reader,
    messages: Messages,
    page: RequestedPage,
    chosen: Annotated[MessageFilter, Query()],
    sort: MessageSort = MessageSort.CREATED,
) -> ListEnvelope[Message]:
    """Return the messages of a chat's current branch, oldest first by default.

    `branch` chooses another branch by its last message, or all messages of the chat.
    """
    result = await messages.list_messages(actor, chat_id, chosen, page, sort=sort)
    return list_envelope(request, value_or_raise(result, "chat"))


@router.get(
    "/{chat_id}/summaries",
    name="chats.summaries",
    summary="List a chat's summaries",
    responses=error_docs(*OF_ONE),
)
async def list_summaries(
    request: Request,
    chat_id: ChatIdPath,
    actor: Reader,
    messages: Messages,
    page: RequestedPage,
) -> ListEnvelope[ChatSummary]:
    """Return what stands for older messages in the prompts of a long chat, newest first.

    A summary is deleted with the last message that it is of.
    """
    result = await messages.list_summaries(actor, chat_id, page)
    return list_envelope(request, value_or_raise(result, "chat"))


@router.get(
    "/{chat_id}/turns",
    name="chats.turns",
    summary="List a chat's turns",
    responses=error_docs(*OF_ONE),
)
async def list_turns(
    request: Request,
    chat_id: ChatIdPath,
    actor: Reader,
    services: Services,
    page: RequestedPage,
    chosen: Annotated[OwnTurnFilter, Query()],
    sort: TurnSort = TurnSort.CREATED_LAST,
) -> ListEnvelope[ListedTurn]:
    """Return the turns of all branches of a chat, newest first by default."""
    result = await services.turns.reading.list_turns_of_chat(
        actor, chat_id, chosen, page, sort=sort
    )
    return list_envelope(request, value_or_raise(result, "chat"))


@router.put(
    "/{chat_id}/leaf",
    name="chats.chooseBranch",
    summary="Choose a branch",
    responses=error_docs(*OF_ONE),
)
async def choose_branch(
    request: Request,
    response: Response,
    chat_id: ChatIdPath,
    body: ChooseLeafRequest,
    actor: Writer,
    messages: Messages,
) -> Envelope[Chat]:
    """Make the newest branch through a message the current one, which messages continue."""
    chosen = await messages.choose_branch(actor, chat_id, body.message_id)
    return tagged(request, response, value_or_raise(chosen, "chat"))


@router.post(
    "/{chat_id}/messages",
    name="messages.create",
    summary="Send a message",
    responses=ANSWER_DOCS,
    dependencies=[limited(Group.MESSAGES), VERIFIED_EMAIL],
)
async def send_message(
    request: Request,
    chat_id: ChatIdPath,
    body: SendMessageRequest,
    actor: Writer,
    caller: CurrentCaller,
    services: Services,
    slot: OpenStream,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Store a message and start a turn that answers it. Disconnecting doesn't stop the turn."""
    if body.stream:
        await slot.take()
    result = await services.turns.acceptance.accept(
        actor, chat_id, body, key=idempotency_key, api_key_id=caller.api_key_id
    )
    accepted = value_or_raise(result, "chat")
    return await answer_turn(request, services, actor, accepted, stream=body.stream)
