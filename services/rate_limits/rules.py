"""What is limited, by how much, and for whom; counting is in `limiter.py`."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from schema.ids import UserId
from schema.plans import RateLimits
from schema.users import email_as_signed_in

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_UNKNOWN_ADDRESS: Final = "address:unknown"
_CUSTOMER_BITS: Final = 64


class Group(StrEnum):
    """Requests that are counted together."""

    AUTH = "auth"
    SHARED = "shared"
    LOGINS = "logins"
    MAILS = "mails"
    CREDENTIALS = "credentials"
    REQUESTS = "requests"
    MESSAGES = "messages"
    SEARCHES = "searches"
    UPLOADS = "uploads"
    EXPORTS = "exports"
    STREAMS = "streams"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of a group within any `window`. Units: the window is in whole seconds."""

    group: Group
    amount: int
    window: timedelta

    @property
    def window_s(self) -> int:
        """The window's length in seconds."""
        return self.window // timedelta(seconds=1)


LimitSet: TypeAlias = tuple[Limit, ...]
"""Limits that must all allow a request; if one refuses, none is charged."""


class AuthLimits(BaseModel):
    """Limits of requests that are not authenticated, or not yet."""

    model_config = ConfigDict(frozen=True)

    requests_per_minute: int = Field(60, ge=1, description="From one address.")
    wrong_credentials_per_minute: int = Field(60, ge=1, description="From one address.")
    logins_per_hour: int = Field(30, ge=1, description="To one account, from all addresses.")
    shared_reads_per_minute: int = Field(300, ge=1, description="From one address.")
    mails_per_hour: int = Field(5, ge=1, description="Of one kind to one account.")

    def for_address(self) -> LimitSet:
        """Return the limits of requests from one address."""
        return (Limit(Group.AUTH, self.requests_per_minute, _MINUTE),)

    def for_wrong_credentials(self) -> LimitSet:
        """Return the limits of invalid tokens and API keys from one address."""
        return (Limit(Group.CREDENTIALS, self.wrong_credentials_per_minute, _MINUTE),)

    def for_shared(self) -> LimitSet:
        """Return the limits of reads of shared branches from one address."""
        return (Limit(Group.SHARED, self.shared_reads_per_minute, _MINUTE),)

    def for_account(self) -> LimitSet:
        """Return the limits of sign-in attempts to one account."""
        return (Limit(Group.LOGINS, self.logins_per_hour, _HOUR),)

    def for_mails(self) -> LimitSet:
        """Return the limits of requests for a mail to one account."""
        return (Limit(Group.MAILS, self.mails_per_hour, _HOUR),)


def limits_for(rates: RateLimits, group: Group) -> LimitSet:
    """Return a plan's limits for a request of this group.

    Each counts as one of `REQUESTS`, too, but for `STREAMS`: clients who lost their streams must
    get them back, however much they asked for before.
    """
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
        case Group.STREAMS:
            return (Limit(group, rates.requests_per_minute, _MINUTE),)
        case _:
            return (requests,)
    return (requests, own)


def user_subject(user_id: UserId) -> str:
    """Return the subject for requests of a user."""
    return f"user:{user_id}"


def account_subject(email: str) -> str:
    """Return the subject for sign-in attempts to the account with this email, if any."""
    # All spellings of an email are one account, and so share its guesses.
    account = email_as_signed_in(email)
    digest = hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()
    return f"account:{digest[:32]}"


def address_subject(host: str | None) -> str:
    """Return the subject for a client that is not signed in.

    A customer gets at least a /64 of IPv6 and may use any address in it, so the whole /64 counts
    as one. Anything else (a Unix socket, a proxy's `unknown`) shares one subject: separate ones
    would be a way around the limit.
    Source: RFC 6177, section 2.
    """
    try:
        address = ip_address(host or "")
    except ValueError:
        return _UNKNOWN_ADDRESS
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return f"address:{IPv6Network((int(address), _CUSTOMER_BITS), strict=False)}"
        address = address.ipv4_mapped
    return f"address:{address}"
