"""Owns users, and what signing up and in exchange."""

from enum import StrEnum
from typing import Annotated

from pydantic import EmailStr, Field

from schema.ids import UserId
from schema.wire import RequestModel, StorableText, Timestamp, WireModel


class UserRole(StrEnum):
    """What a user may do."""

    USER = "user"
    ADMIN = "admin"


class UserStatus(StrEnum):
    """Whether a user may sign in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class User(WireModel):
    """A person, as they see themselves."""

    id: UserId
    email: str
    display_name: str | None
    role: UserRole
    created_at: Timestamp


class Session(WireModel):
    """The tokens of a sign-in. Units: `expires_in` is in seconds."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 -- the scheme's name, not a secret
    expires_in: int
    user: User


Password = Annotated[StorableText, Field(min_length=8, max_length=256)]
Email = Annotated[EmailStr, Field(max_length=254)]


class SignUpRequest(RequestModel):
    """A new account."""

    email: Email
    password: Password
    display_name: Annotated[StorableText, Field(min_length=1, max_length=100)] | None = None


class LogInRequest(RequestModel):
    """An e-mail address and its password."""

    email: Annotated[StorableText, Field(min_length=1, max_length=254)]
    password: Annotated[StorableText, Field(min_length=1, max_length=256)]


class RefreshRequest(RequestModel):
    """A refresh token, which is used up by this."""

    refresh_token: Annotated[StorableText, Field(min_length=1, max_length=512)]
