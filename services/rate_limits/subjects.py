"""Owns whom a limit is counted for, as a short text without anything personal in it."""

import hashlib
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from schema.ids import UserId

_UNKNOWN: Final = "address:unknown"
_CUSTOMER_BITS: Final = 64


def user_subject(user_id: UserId) -> str:
    """Return the subject of what a user does."""
    return f"user:{user_id}"


def account_subject(email: str) -> str:
    """Return the subject of guesses at the account with this e-mail address, if there is one."""
    digest = hashlib.sha256(email.lower().encode("utf-8", "surrogatepass")).hexdigest()
    return f"account:{digest[:32]}"


def address_subject(host: str | None) -> str:
    """Return the subject of a client that nobody is signed in at.

    A customer is handed at least a /64 of IPv6 and may use any address in it, so the whole /64
    is one. What is no address (a Unix socket, a proxy's `unknown`) is one subject together:
    were each its own, writing nonsense would be a way around.
    Source: RFC 6177, section 2.
    """
    try:
        address = ip_address(host or "")
    except ValueError:
        return _UNKNOWN
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return f"address:{IPv6Network((int(address), _CUSTOMER_BITS), strict=False)}"
        address = address.ipv4_mapped
    return f"address:{address}"
