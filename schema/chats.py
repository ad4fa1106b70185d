"""Owns chats and messages as clients see and send them."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schema.ids import ChatId, MessageId, TurnId
from schema.turns import IfBusy
from schema.wire import RequestModel, StorableText, Timestamp, WireModel


class MessageRole(StrEnum):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


class MessageStatus(StrEnum):
    """Whether an answer is whole; a user's message always is."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Chat(WireModel):
    """A conversation of one user."""

    id: ChatId
    title: str
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


class CreateChatRequest(RequestModel):
    """A new chat."""

    title: Annotated[StorableText, Field(min_length=1, max_length=200, examples=["Trip to Rome"])]


class SendMessageRequest(RequestModel):
    """A message to answer. The length limit of `content` is a setting, checked by the service."""

    content: Annotated[StorableText, Field(min_length=1, examples=["What is 12 * 34?"])]
    stream: bool = False
    model: Annotated[StorableText, Field(min_length=1, max_length=100)] | None = None
    if_busy: Annotated[IfBusy, Field(strict=False)] = IfBusy.REJECT
