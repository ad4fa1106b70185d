"""Shares of branches, as their owners and as everyone with the link see them."""

from typing import Annotated

from pydantic import Field

from schema.chats import ChatTitle, MessageRole
from schema.ids import ChatId, MessageId, ShareId
from schema.wire import Moment, RequestModel, Timestamp, WireModel


class ShareRequest(RequestModel):
    """A share of a branch: up to a message, by default the whole current one."""

    message_id: Annotated[MessageId | None, Field(strict=False)] = None
    title: Annotated[
        ChatTitle | None, Field(description="What readers see; by default the chat's title.")
    ] = None
    expires_at: Moment | None = None


class Share(WireModel):
    """A branch that everyone with its link can read, up to `messageId`."""

    id: ShareId
    chat_id: ChatId
    message_id: MessageId
    title: str | None
    created_at: Timestamp
    expires_at: Timestamp | None


class CreatedShare(Share):
    """A share created by this request, or by an earlier one with the same idempotency key."""

    token: str | None = Field(
        description="The secret part of the link. It is not stored and returned only once: null "
        "when the request is a retry with the same idempotency key."
    )
    url: str | None = Field(description="Where anyone can read the share; null like the token.")


class SharedMessage(WireModel):
    """What was said, without ids, tools, costs or anything else of the owner's."""

    role: MessageRole
    content: str
    created_at: Timestamp


class SharedConversation(WireModel):
    """A shared branch, oldest message first; `isWhole` is whether all of it is there."""

    title: str | None
    shared_at: Timestamp
    expires_at: Timestamp | None
    is_whole: bool
    messages: list[SharedMessage]
