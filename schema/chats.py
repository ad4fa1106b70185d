"""Owns chats and messages as clients see and send them."""

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
    """Whether an answer is whole; a user's message always is."""

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
    """One message; `status` other than `completed` marks text that was cut off."""

    id: MessageId
    chat_id: ChatId
    turn_id: TurnId
    role: MessageRole
    content: str
    status: MessageStatus
    created_at: Timestamp


ChatTitle = Annotated[VisibleText, Field(min_length=1, max_length=200, examples=["Trip to Rome"])]


class ChatSort(StrEnum):
    """The orders of a list of chats; a minus puts the largest first."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    UPDATED = "updatedAt"
    UPDATED_LAST = "-updatedAt"
    TITLE = "title"
    TITLE_LAST = "-title"


class ChatFilter(FilterModel):
    """Which chats are listed."""

    search: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=200, description="Words in the title or the messages."),
    ] = None
    archived: Annotated[bool | None, Field(description="Those in the archive, or not.")] = None


class CreateChatRequest(RequestModel):
    """A new chat."""

    title: ChatTitle


class ChangeChatRequest(ChangeModel):
    """A new title, or a place in the archive."""

    title: ChatTitle = unset()
    archived: bool = unset()


class SendMessageRequest(RequestModel):
    """A message to answer. The length limit of `content` is a setting, checked by the service."""

    content: Annotated[StorableText, Field(min_length=1, examples=["What is 12 * 34?"])]
    stream: bool = False
    model: Annotated[StorableText, Field(min_length=1, max_length=100)] | None = None
    if_busy: Annotated[IfBusy, Field(strict=False)] = IfBusy.REJECT
