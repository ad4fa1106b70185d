"""Rows of prompts, their versions and activations."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment


class PromptRow(SQLModel, table=True):
    """A prompt, identified by its name; `version` counts the changes of this row."""

    __tablename__ = "prompts"

    id: UUID = Field(primary_key=True)
    name: str
    description: str = ""
    latest_version: int = 0
    active_version: int | None = None
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class PromptVersionRow(SQLModel, table=True):
    """One version of a prompt's text, which never changes."""

    __tablename__ = "prompt_versions"

    prompt_id: UUID = Field(primary_key=True, foreign_key="prompts.id")
    number: int = Field(primary_key=True)
    content: str
    note: str = ""
    created_by: UUID | None = Field(default=None, foreign_key="users.id")
    created_at: datetime = creation_moment()


class PromptActivationRow(SQLModel, table=True):
    """An activation of a prompt's version."""

    __tablename__ = "prompt_activations"

    id: UUID = Field(primary_key=True)
    prompt_id: UUID = Field(foreign_key="prompts.id")
    number: int
    activated_by: UUID | None = Field(default=None, foreign_key="users.id")
    created_at: datetime = creation_moment()
