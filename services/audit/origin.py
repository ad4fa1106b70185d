"""Owns where a request came from, so that what is recorded can say so without being told.

The front sets it for each request; what no request asked for, as a sweep, has none. Of an address
only the network is known here, since what is recorded outlives whoever it is about.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

_NETWORK_BITS: Final = {4: 24, 6: 48}


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that something is done for; `network` is the one that its client is in."""

    request_id: str | None = None
    network: str | None = None


_origin: ContextVar[Origin] = ContextVar("everturn_origin", default=Origin())  # noqa: B039 -- frozen


def set_origin(origin: Origin) -> None:
    """Say for this task, and those begun by it, where its request came from."""
    _origin.set(origin)


def current_origin() -> Origin:
    """Return where this task's request came from."""
    return _origin.get()


# Clients come back: to take an address apart costs as much as to look a token up.
@lru_cache(maxsize=1024)
def network_of(host: str) -> str | None:
    """Return the network of an IP address, as `203.0.113.0/24`; what is no address has none."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return str(ip_network((address, _NETWORK_BITS[address.version]), strict=False))
