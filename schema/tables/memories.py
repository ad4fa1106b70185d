"""Rows of memories."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import REAL
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, embedding, moment


class MemoryRow(SQLModel, table=True):
    """A memory of a user; `embedder` names the embedder of the vector.

    A suggestion has the `passage` that it was learnt from, and may replace another memory.
    The database has two more columns, set by it: `search_text`, the words of the content, and
    `words_key`, the same for contents that differ by writing alone.
    """

    __tablename__ = "memories"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    kind: str
    content: str
    importance: float = Field(default=0.5, sa_type=REAL)
    status: str = "accepted"
    source_turn_id: UUID | None = Field(default=None, foreign_key="turns.id")
    passage: str | None = None
    replaces_id: UUID | None = Field(default=None, foreign_key="memories.id")
    replaced_by_id: UUID | None = Field(default=None, foreign_key="memories.id")
    embedding: list[float] | None = embedding()
    embedder: str | None = None
    pinned: bool = False
    expires_at: datetime | None = moment()
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()
