"""Users as they and administrators see them, and the requests of sign-up and sign-in."""

import unicodedata
from enum import StrEnum
from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BeforeValidator, EmailStr, Field

from schema.ids import PlanId, SessionId, UserId
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
    """A user's role."""

    USER = "user"
    ADMIN = "admin"


class UserStatus(StrEnum):
    """Whether a user may sign in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class User(VersionedModel):
    """A user's own account; `email` is null if an external issuer gave none."""

    id: UserId
    email: str | None
    email_verified: bool = Field(description="Whether the user has shown that it is theirs.")
    pending_email: str | None = Field(
        description="The address that replaces `email` once the link that was sent there is used."
    )
    display_name: str | None
    role: UserRole
    created_at: Timestamp
    updated_at: Timestamp


class ManagedUser(User):
    """A user, as administrators see them."""

    status: UserStatus
    plan_id: PlanId


class Session(WireModel):
    """The tokens of a session. Units: `expiresIn` is in seconds."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 -- the scheme's name, not a secret
    expires_in: int
    user: User


Password = Annotated[
    StorableText, Field(min_length=8, max_length=256, examples=["correct horse battery staple"])
]
GivenPassword = Annotated[StorableText, Field(min_length=1, max_length=256)]
"""A password to check: the rules for new ones may have changed since it was set."""


def normalized_email(address: str) -> str:
    """Return the one form of an email that an account is kept under; two that look alike share it.

    Full-width letters become plain ones, internationalised domains get their ASCII form. Other
    letters before the @ are refused: an `admin` without the dot is one to the eye, and hardly any
    mail server takes it.

    Errors: ValueError for an invalid address.
    Source: Unicode Technical Report 36, section 2; RFC 5891.
    """
    plain = unicodedata.normalize("NFKC", address)
    try:
        checked = validate_email(plain, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        raise ValueError("must be a valid email address") from None
    return (checked.ascii_email or "").lower()


def email_as_signed_in(given: str) -> str:
    """Return the form under which to look for the account of an email that somebody signs in with.

    Accounts of earlier versions may have one that would be refused today.
    """
    try:
        return normalized_email(given)
    except ValueError:
        return given.lower()


def _plain(given: object) -> object:
    return unicodedata.normalize("NFKC", given) if isinstance(given, str) else given


# Normalised first: it can be longer, and the stored value must fit into its column.
Email = Annotated[
    EmailStr,
    BeforeValidator(_plain),
    AfterValidator(normalized_email),
    Field(max_length=254, examples=["ada@example.com"]),
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
    """An email address and its password."""

    email: Annotated[StorableText, Field(min_length=1, max_length=254)]
    password: GivenPassword


class RefreshRequest(RequestModel):
    """A refresh token, which can be used once."""

    refresh_token: Annotated[StorableText, Field(min_length=1, max_length=512)]


LinkToken = Annotated[
    StorableText,
    Field(min_length=1, max_length=200, description="The token in the link of the mail."),
]


class PasswordResetRequest(RequestModel):
    """The email address of the account whose password is forgotten."""

    email: Annotated[
        StorableText, Field(min_length=1, max_length=254, examples=["ada@example.com"])
    ]


class ConfirmPasswordResetRequest(RequestModel):
    """The new password, and the token that was sent for it."""

    token: LinkToken
    password: Password
    revoke_api_keys: Annotated[
        bool, Field(description="Whether to revoke all API keys of the account, too.")
    ] = False


class ConfirmEmailRequest(RequestModel):
    """The token that was sent to the email address."""

    token: LinkToken


class SentLink(WireModel):
    """A link that is on its way. Units: `expiresIn` is in seconds."""

    email: str
    expires_in: int


class SignedInSession(WireModel):
    """A session: what began with signing in, and lasts while its tokens are refreshed."""

    id: SessionId
    created_at: Timestamp
    last_used_at: Timestamp = Field(description="When its tokens were last refreshed.")
    user_agent: str | None = Field(description="The browser or program, e.g. Firefox on Linux.")
    network: str | None = Field(description="The client's network, e.g. 203.0.113.0/24.")
    current: bool = Field(description="Whether this request belongs to it.")


class ChangeUserRequest(ChangeModel):
    """A change of one's own account.

    A new email address or password requires `currentPassword`.
    """

    display_name: DisplayName | None = unset()
    email: Email = unset()
    new_password: Password = unset()
    current_password: GivenPassword = unset()


class DeleteUserRequest(RequestModel):
    """The confirmation of an account's deletion."""

    current_password: Annotated[
        GivenPassword | None, Field(description="Required for accounts with a password.")
    ] = None


class ManageUserRequest(ChangeModel):
    """A change of an account by an administrator."""

    display_name: DisplayName | None = unset()
    role: Annotated[UserRole, Field(strict=False)] = unset()
    status: Annotated[UserStatus, Field(strict=False)] = unset()


class UserSort(StrEnum):
    """The sort orders of a list of users; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    EMAIL = "email"
    EMAIL_LAST = "-email"


class UserFilter(FilterModel):
    """Filters for a list of users."""

    search: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=200, description="Filter by email address or display name."),
    ] = None
    role: UserRole | None = None
    status: UserStatus | None = None
    plan_id: Annotated[PlanId | None, Field(description="Filter by plan.")] = None
