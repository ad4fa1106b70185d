"""Owns the rows of people and of what proves who they are."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class UserRow(SQLModel, table=True):
    """A person. `email` is kept in lower case and is unique."""

    __tablename__ = "users"

    id: UUID = Field(primary_key=True)
    email: str
    display_name: str | None = None
    role: str = "user"
    status: str = "active"
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class CredentialRow(SQLModel, table=True):
    """The Argon2id hash of a user's password; only the authentication service sees it."""

    __tablename__ = "credentials"

    user_id: UUID = Field(primary_key=True, foreign_key="users.id")
    password_hash: str
    updated_at: datetime = creation_moment()


class RefreshTokenRow(SQLModel, table=True):
    """One link of a chain of refresh tokens; `token_hash` is SHA-256 of the token."""

    __tablename__ = "refresh_tokens"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    family_id: UUID
    token_hash: bytes
    created_at: datetime = creation_moment()
    expires_at: datetime = moment(nullable=False)
    used_at: datetime | None = moment()
    revoked_at: datetime | None = moment()
