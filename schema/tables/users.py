"""Rows of users and their credentials."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class UserRow(SQLModel, table=True):
    """A user. `email` is normalised and unique; accounts of external issuers may have none.

    `pending_email` becomes the email once it is verified. The database takes `email_verified` back
    when the email changes.
    """

    __tablename__ = "users"

    id: UUID = Field(primary_key=True)
    email: str | None = None
    email_verified: bool = False
    pending_email: str | None = None
    display_name: str | None = None
    role: str = "user"
    status: str = "active"
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class CredentialRow(SQLModel, table=True):
    """The Argon2id hash of a user's password; only the authentication service sees it."""

    __tablename__ = "credentials"

    user_id: UUID = Field(primary_key=True, foreign_key="users.id")
    password_hash: str
    updated_at: datetime = creation_moment()


class RefreshTokenRow(SQLModel, table=True):
    """One refresh token of a chain; `token_hash` is SHA-256 of the token.

    `used_by` is a hash of the client that used it, as far as a request tells clients apart;
    `user_agent` and `network` are of the request that it was issued to, in short.
    """

    __tablename__ = "refresh_tokens"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    family_id: UUID
    token_hash: bytes
    created_at: datetime = creation_moment()
    expires_at: datetime = moment(nullable=False)
    used_at: datetime | None = moment()
    used_by: bytes | None = None
    revoked_at: datetime | None = moment()
    user_agent: str | None = None
    network: str | None = None


class MailRow(SQLModel, table=True):
    """A mail to a user. `token_hashes` are SHA-256 of the tokens that it may have been sent with.

    `bound_to` is a hash of the password that its link replaces.
    """

    __tablename__ = "mails"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    kind: str
    address: str
    bound_to: bytes | None = None
    token_hashes: list[bytes] = Field(default_factory=list, sa_type=ARRAY(LargeBinary))
    status: str = "pending"
    problem: str | None = None
    attempts: int = 0
    created_at: datetime = creation_moment()
    expires_at: datetime = moment(nullable=False)
    finished_at: datetime | None = moment()
    used_at: datetime | None = moment()


class PreferencesRow(SQLModel, table=True):
    """The preferences of a user; without a row, the defaults apply."""

    __tablename__ = "preferences"

    user_id: UUID = Field(primary_key=True, foreign_key="users.id")
    language: str | None = None
    time_zone: str | None = None
    instructions: str | None = None
    default_model: str | None = None
    use_memories: bool = True
    use_knowledge: bool = True
    auto_accept_memories: bool = False
    extract_memories: bool = True
    disabled_tools: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    tool_approvals: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    version: int = 1
    updated_at: datetime = creation_moment()


class IdentityRow(SQLModel, table=True):
    """A user's identity at an external issuer of tokens."""

    __tablename__ = "identities"

    issuer: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    created_at: datetime = creation_moment()


class ClosedIdentityRow(SQLModel, table=True):
    """An external identity whose account was deleted; `identity_hash` is SHA-256 of it.

    Kept for a day: tokens that were issued before the deletion create no new account.
    """

    __tablename__ = "closed_identities"

    identity_hash: bytes = Field(primary_key=True)
    closed_at: datetime = creation_moment()


class ApiKeyRow(SQLModel, table=True):
    """A key for programs; `key_hash` is SHA-256 of it, `start` its first characters."""

    __tablename__ = "api_keys"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id")
    name: str
    start: str
    key_hash: bytes
    permissions: list[str] = Field(sa_type=ARRAY(Text))
    created_at: datetime = creation_moment()
    expires_at: datetime | None = moment()
    last_used_at: datetime | None = moment()
    revoked_at: datetime | None = moment()
