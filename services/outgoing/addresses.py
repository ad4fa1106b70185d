"""Owns which addresses belong to the internet at large. Pure.

Source: the IANA registries of special-purpose addresses; RFC 6052 (NAT64), 5214 (ISATAP).
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

# What the standard library calls global, here or in one of its versions, and is not.
_NOT_GLOBAL_4: Final = tuple(
    IPv4Network(block)
    for block in ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4")
)
_NOT_GLOBAL_6: Final = tuple(
    IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_UNICAST: Final = IPv6Network("2000::/3")
"""All that was ever given out: an address beyond it is special, in ways old or still to come."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({bytes.fromhex("00005efe"), bytes.fromhex("02005efe")})


def is_public(address: str) -> bool:
    """Say whether an address belongs to the internet at large; what is no address does not."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _is_public_4(parsed) if isinstance(parsed, IPv4Address) else _is_public_6(parsed)


def _is_public_4(address: IPv4Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in block for block in _NOT_GLOBAL_4)
    )


def _is_public_6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    embedded = IPv4Address(address.packed[12:])
    if address in _NAT64:
        # The only way to servers of IPv4 in networks that have IPv6 alone.
        return _is_public_4(embedded)
    if address.packed[8:12] in _ISATAP and not _is_public_4(embedded):
        return False
    return (
        address in _UNICAST
        and address.is_global
        and not any(address in block for block in _NOT_GLOBAL_6)
    )
