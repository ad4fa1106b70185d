"""Owns users as they and administrators see them, and what signing up and in exchange."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, EmailStr, Field

from schema.ids import PlanId, UserId
from schema.wire import (
    ChangeModel,
    FilterModel,
    RequestModel,
    StorableText,
    Timestamp,
    VersionedModel,
    WireModel,
    unset,
)


class UserRole(StrEnum):
    """What a user may do."""

    USER = "user"
    ADMIN = "admin"


class UserStatus(StrEnum):
    """Whether a user may sign in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class User(VersionedModel):
    """A person, as they see themselves; `email` is null where an outside issuer told of none."""

    id: UserId
    email: str | None
    display_name: str | None
    role: UserRole
    created_at: Timestamp
    updated_at: Timestamp


class ManagedUser(User):
    """A person, as administrators see them."""

    status: UserStatus
    plan_id: PlanId


class Session(WireModel):
    """The tokens of a sign-in. Units: `expires_in` is in seconds."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 -- the scheme's name, not a secret
    expires_in: int
    user: User


Password = Annotated[
    StorableText, Field(min_length=8, max_length=256, examples=["correct horse battery staple"])
]
GivenPassword = Annotated[StorableText, Field(min_length=1, max_length=256)]
"""A password that is to be compared: rules for new ones may have changed since it was set."""

# Lower case first: it can be longer, and what is stored has to be no longer than its column.
Email = Annotated[
    EmailStr, AfterValidator(str.lower), Field(max_length=254, examples=["ada@example.com"])
]
DisplayName = Annotated[
    StorableText, Field(min_length=1, max_length=100, examples=["Ada Lovelace"])
]


class SignUpRequest(RequestModel):
    """A new account."""

    email: Email
    password: Password
    display_name: DisplayName | None = None


class LogInRequest(RequestModel):
    """An e-mail address and its password."""

    email: Annotated[StorableText, Field(min_length=1, max_length=254)]
    password: GivenPassword


class RefreshRequest(RequestModel):
    """A refresh token, which is used up by this."""

    refresh_token: Annotated[StorableText, Field(min_length=1, max_length=512)]


class ChangeUserRequest(ChangeModel):
    """What somebody changes of their own account.

    A new e-mail address and a new password want the current password beside them.
    """

    display_name: DisplayName | None = unset()
    email: Email = unset()
    new_password: Password = unset()
    current_password: GivenPassword = unset()


class ManageUserRequest(ChangeModel):
    """What an administrator changes of an account."""

    display_name: DisplayName | None = unset()
    role: Annotated[UserRole, Field(strict=False)] = unset()
    status: Annotated[UserStatus, Field(strict=False)] = unset()


class UserSort(StrEnum):
    """The orders of a list of users; a minus puts the largest first."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    EMAIL = "email"
    EMAIL_LAST = "-email"


class UserFilter(FilterModel):
    """Which users are listed."""

    search: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=200, description="In the e-mail address or the name."),
    ] = None
    role: UserRole | None = None
    status: UserStatus | None = None
    plan_id: Annotated[PlanId | None, Field(description="Only those who have this plan.")] = None
