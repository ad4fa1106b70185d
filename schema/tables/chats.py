"""Rows of chats and messages."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class ChatRow(SQLModel, table=True):
    """A conversation. Its row is the lock that lets one turn at a time into the chat."""

    __tablename__ = "chats"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    title: str
    archived_at: datetime | None = moment()
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class MessageRow(SQLModel, table=True):
    """One message. The order of a conversation is that of `(turn_id, id)`.

    `superseded` marks messages of a turn whose answer was regenerated; `tokens` is an estimate.
    """

    __tablename__ = "messages"

    id: UUID = Field(primary_key=True)
    chat_id: UUID = Field(foreign_key="chats.id")
    user_id: UUID = Field(foreign_key="users.id")
    turn_id: UUID = Field(foreign_key="turns.id")
    role: str
    content: str
    status: str = "completed"
    superseded: bool = False
    tokens: int | None = None
    created_at: datetime = creation_moment()
