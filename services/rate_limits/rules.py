"""Owns what is limited, and by how much; counting is done elsewhere."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from schema.plans import RateLimits

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)


class Group(StrEnum):
    """What is counted together."""

    AUTH = "auth"
    LOGINS = "logins"
    CREDENTIALS = "credentials"
    REQUESTS = "requests"
    MESSAGES = "messages"
    SEARCHES = "searches"
    UPLOADS = "uploads"
    EXPORTS = "exports"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of a group within any `window`. Units: the window has whole seconds."""

    group: Group
    amount: int
    window: timedelta

    @property
    def window_s(self) -> int:
        """The window's length in seconds."""
        return self.window // timedelta(seconds=1)


LimitSet: TypeAlias = tuple[Limit, ...]
"""Limits that all have to allow what is asked for; where one refuses, none is charged."""


class AuthLimits(BaseModel):
    """How often one may ask to be let in, before anybody knows who asks."""

    model_config = ConfigDict(frozen=True)

    requests_per_minute: int = Field(60, ge=1, description="Of one address.")
    wrong_credentials_per_minute: int = Field(60, ge=1, description="From one address.")
    logins_per_hour: int = Field(30, ge=1, description="To one account, from all addresses.")

    def of_address(self) -> LimitSet:
        """Return the limits of one address."""
        return (Limit(Group.AUTH, self.requests_per_minute, _MINUTE),)

    def of_wrong_credentials(self) -> LimitSet:
        """Return the limits of guesses at tokens and API keys from one address."""
        return (Limit(Group.CREDENTIALS, self.wrong_credentials_per_minute, _MINUTE),)

    def of_account(self) -> LimitSet:
        """Return the limits of guesses at one account."""
        return (Limit(Group.LOGINS, self.logins_per_hour, _HOUR),)


def limits_of(rates: RateLimits, group: Group) -> LimitSet:
    """Return a plan's limits of a request of this group; each is one of `REQUESTS` too."""
    requests = Limit(Group.REQUESTS, rates.requests_per_minute, _MINUTE)
    match group:
        case Group.MESSAGES:
            own = Limit(group, rates.messages_per_minute, _MINUTE)
        case Group.SEARCHES:
            own = Limit(group, rates.searches_per_minute, _MINUTE)
        case Group.UPLOADS:
            own = Limit(group, rates.uploads_per_hour, _HOUR)
        case Group.EXPORTS:
            own = Limit(group, rates.exports_per_hour, _HOUR)
        case _:
            return (requests,)
    return (requests, own)
