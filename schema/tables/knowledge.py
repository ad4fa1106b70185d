"""Rows of documents, their versions and their passages."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, embedding, moment


class DocumentRow(SQLModel, table=True):
    """A document; `version` counts its changes, `published_version` is what others find."""

    __tablename__ = "documents"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    title: str
    latest_version: int = 1
    published_version: int | None = None
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class DocumentVersionRow(SQLModel, table=True):
    """One version of a document: its source never changes, its ingestion progresses."""

    __tablename__ = "document_versions"

    document_id: UUID = Field(primary_key=True, foreign_key="documents.id")
    number: int = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    content_type: str
    source: bytes
    content: str | None = None
    status: str = "pending"
    problem: str | None = None
    passage_count: int = 0
    embedded_count: int = 0
    published: bool = False
    created_at: datetime = creation_moment()
    finished_at: datetime | None = moment()


class PassageRow(SQLModel, table=True):
    """A piece of a version's text, from `start_char` to `end_char` of it.

    The database has another column, `search_text`, for full-text search.
    """

    __tablename__ = "passages"

    id: UUID = Field(primary_key=True)
    document_id: UUID = Field(foreign_key="documents.id")
    version: int
    user_id: UUID = Field(foreign_key="users.id")
    position: int
    content: str
    start_char: int
    end_char: int
    published: bool = False
    embedding: list[float] | None = embedding()
    embedder: str | None = None
    created_at: datetime = creation_moment()
