"""Chats and messages as clients see and send them."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schema.ids import ChatId, MessageId, TurnId
from schema.turns import IfBusy
from schema.wire import (
    ChangeModel,
    FilterModel,
    RequestModel,
    StorableText,
    Timestamp,
    VersionedModel,
    VisibleText,
    WireModel,
    unset,
)


class MessageRole(StrEnum):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


class MessageStatus(StrEnum):
    """Whether a message is complete; a user's message always is."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Chat(VersionedModel):
    """A conversation of one user."""

    id: ChatId
    title: str
    archived: bool
    created_at: Timestamp
    updated_at: Timestamp


class Message(WireModel):
    """One message; with a status other than `completed` its text is incomplete."""

    id: MessageId
    chat_id: ChatId
    turn_id: TurnId
    role: MessageRole
    content: str
    status: MessageStatus
    created_at: Timestamp


ChatTitle = Annotated[VisibleText, Field(min_length=1, max_length=200, examples=["Trip to Rome"])]


class ChatSort(StrEnum):
    """The sort orders of a list of chats; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    UPDATED = "updatedAt"
    UPDATED_LAST = "-updatedAt"
    TITLE = "title"
    TITLE_LAST = "-title"


class ArchivedFilter(StrEnum):
    """Whether a list holds archived chats, others, or both."""

    TRUE = "true"
    FALSE = "false"
    ANY = "any"


class ChatFilter(FilterModel):
    """Filters for a list of chats."""

    search: Annotated[
        StorableText | None,
        Field(
            min_length=1,
            max_length=200,
            description="Filter by words in the title or the messages.",
        ),
    ] = None
    archived: Annotated[
        ArchivedFilter, Field(description="Filter by archived; `any` lists all chats.")
    ] = ArchivedFilter.FALSE


class CreateChatRequest(RequestModel):
    """A new chat."""

    title: ChatTitle


class ChangeChatRequest(ChangeModel):
    """A new title, or whether the chat is archived."""

    title: ChatTitle = unset()
    archived: bool = unset()


class SendMessageRequest(RequestModel):
    """A message to answer. The server's settings limit the length of `content`."""

    content: Annotated[StorableText, Field(min_length=1, examples=["What is 12 * 34?"])]
    stream: bool = False
    model: Annotated[StorableText, Field(min_length=1, max_length=100)] | None = None
    if_busy: Annotated[IfBusy, Field(strict=False)] = IfBusy.REJECT
