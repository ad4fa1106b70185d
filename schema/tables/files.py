"""Rows of files, their pieces, and where they are attached."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class FileRow(SQLModel, table=True):
    """A file of a user, checked and never changed; `attached` since it was named by a message.

    `tokens` is what it adds to a prompt, by estimate. `model_type` and `model_size` describe the
    rendition of an image for models; `text` is a text file as it stands in a prompt.
    """

    __tablename__ = "files"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    name: str
    content_type: str
    size: int
    sha256: bytes
    storage: str
    origin: str = "upload"
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    tokens: int
    model_type: str | None = None
    model_size: int | None = None
    text: str | None = None
    attached: bool = False
    created_at: datetime = creation_moment()


class FilePieceRow(SQLModel, table=True):
    """A piece of a file that is stored in the database: of the original, or for models."""

    __tablename__ = "file_pieces"

    file_id: UUID = Field(primary_key=True, foreign_key="files.id")
    variant: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    data: bytes


class AttachmentRow(SQLModel, table=True):
    """A file at its place in a message, or an image in the result of a tool call.

    It outlives its file: that something was attached stays visible.
    """

    __tablename__ = "attachments"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    message_id: UUID | None = Field(default=None, foreign_key="messages.id")
    turn_id: UUID | None = None
    step: int | None = None
    tool_call_id: str | None = None
    position: int
    file_id: UUID
    name: str
    content_type: str
    size: int


class FileErasureRow(SQLModel, table=True):
    """An object in storage that is to be deleted, unless its file is stored before `due_at`."""

    __tablename__ = "file_erasures"

    file_id: UUID = Field(primary_key=True)
    due_at: datetime = moment(nullable=False)
