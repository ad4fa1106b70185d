"""Rows of chats and messages."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class ChatRow(SQLModel, table=True):
    """A conversation. Its row is the lock that lets one turn at a time into the chat.

    `leaf_id` is the last message of the branch that the chat shows; `updated_at` is when the last
    message was sent or answered. `title` is empty while the chat has none.
    """

    __tablename__ = "chats"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    title: str
    archived_at: datetime | None = moment()
    pinned_at: datetime | None = moment()
    tags: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    leaf_id: UUID | None = Field(default=None, foreign_key="messages.id")
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class MessageRow(SQLModel, table=True):
    """One message, which follows another one. The order of a branch is that of `(turn_id, id)`.

    `parent_id` is None for a question that begins the conversation. What is asked while a turn
    runs follows that turn's question, and its answer once there is one. With a `joined_step` it
    belongs to the question that it follows: it joined that one's turn before the step, or, with 0,
    is an edit of such a message. `tokens` is an estimate. `structured` is the value of an answer
    that fits the schema of its turn.

    `work_tokens` and `brief_tokens` are what the tool calls of an answer and their results add to
    it in later prompts, whole and shortened; None is unknown. With `left_out` later prompts have
    neither the answer nor its question.
    """

    __tablename__ = "messages"

    id: UUID = Field(primary_key=True)
    chat_id: UUID = Field(foreign_key="chats.id")
    user_id: UUID = Field(foreign_key="users.id")
    turn_id: UUID = Field(foreign_key="turns.id")
    parent_id: UUID | None = Field(default=None, foreign_key="messages.id")
    role: str
    content: str
    status: str = "completed"
    tokens: int | None = None
    client_metadata: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    structured: Any = Field(default=None, sa_type=JSONB)
    joined_step: int | None = None
    work_tokens: int | None = None
    brief_tokens: int | None = None
    left_out: bool = False
    created_at: datetime = creation_moment()


class ChatSummaryRow(SQLModel, table=True):
    """A summary of a branch up to a message, itself included; for all branches that have it.

    `version` counts the summaries that it is made of; `messages` how many messages it is of.
    """

    __tablename__ = "chat_summaries"

    id: UUID = Field(primary_key=True)
    chat_id: UUID = Field(foreign_key="chats.id")
    user_id: UUID = Field(foreign_key="users.id")
    message_id: UUID = Field(foreign_key="messages.id")
    version: int
    content: str
    tokens: int
    messages: int
    model: str
    created_at: datetime = creation_moment()


class ShareRow(SQLModel, table=True):
    """A link by which anyone can read a branch up to a message; its token is stored hashed."""

    __tablename__ = "shares"

    id: UUID = Field(primary_key=True)
    chat_id: UUID = Field(foreign_key="chats.id")
    message_id: UUID = Field(foreign_key="messages.id")
    user_id: UUID = Field(foreign_key="users.id")
    title: str
    token_hash: bytes
    created_at: datetime = creation_moment()
    expires_at: datetime | None = moment()


class FeedbackRow(SQLModel, table=True):
    """Feedback on an answer, with the model and the version of the base prompt that gave it."""

    __tablename__ = "feedback"

    id: UUID = Field(primary_key=True)
    message_id: UUID = Field(foreign_key="messages.id")
    chat_id: UUID = Field(foreign_key="chats.id")
    turn_id: UUID
    user_id: UUID = Field(foreign_key="users.id")
    rating: str
    reason: str | None = None
    text: str | None = None
    model: str
    prompt_version: str | None = None
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()
