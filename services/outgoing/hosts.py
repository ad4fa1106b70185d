"""Which hosts may be connected to: public addresses, and hosts that an operator allows.

Source: the IANA registries of special-purpose addresses; RFC 6052 (NAT64), 5214 (ISATAP).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

# What some version of the standard library calls global, but is not.
_NOT_GLOBAL_4: Final = tuple(
    IPv4Network(block)
    for block in ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4")
)
_NOT_GLOBAL_6: Final = tuple(
    IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_UNICAST: Final = IPv6Network("2000::/3")
"""All that has been allocated for unicast; addresses beyond it are special or reserved."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({bytes.fromhex("00005efe"), bytes.fromhex("02005efe")})


def is_public(address: str) -> bool:
    """Return whether an address is public; text that is not an address is not."""
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
        # The only way to IPv4 servers from networks that only have IPv6.
        return _is_public_4(embedded)
    if address.packed[8:12] in _ISATAP and not _is_public_4(embedded):
        return False
    return (
        address in _UNICAST
        and address.is_global
        and not any(address in block for block in _NOT_GLOBAL_6)
    )


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Hosts that may be connected to although they are not public, with one port or all of them."""

    _entries: frozenset[tuple[str, int | None]]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "AllowedHosts":
        """Read `host` and `host:port`; an IPv6 address has brackets if a port follows.

        An entry of another form allows nothing.
        """
        return cls(frozenset(_entry(text.strip()) for text in entries))

    def allows(self, host: str, port: int) -> bool:
        """Return whether a host may be connected to regardless of its addresses."""
        name = _canonical(host)
        return bool(name) and not self._entries.isdisjoint({(name, None), (name, port)})


def _entry(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    is_one_host = not colon or text.endswith("]") or (":" in host and not host.endswith("]"))
    if is_one_host or not port.isdecimal():
        return _canonical(text), None
    return _canonical(host), int(port)


def _canonical(host: str) -> str:
    """Return the canonical spelling of a host.

    `0x7f.1` stays as it is: allowing 127.0.0.1 does not allow its other spellings.
    """
    name = host.removeprefix("[").removesuffix("]").lower().removesuffix(".")
    try:
        return str(ip_address(name))
    except ValueError:
        return name
