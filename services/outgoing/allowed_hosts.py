"""Owns which hosts may be connected to although they are not public: those named by an operator."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Hosts by name, each with all of its ports or with one."""

    _entries: frozenset[tuple[str, int | None]]

    @classmethod
    def named(cls, entries: Iterable[str]) -> "AllowedHosts":
        """Read `host` and `host:port`; an address of IPv6 has brackets where a port follows.

        An entry that is neither allows nothing.
        """
        return cls(frozenset(_entry(text.strip()) for text in entries))

    def allows(self, host: str, port: int) -> bool:
        """Say whether a host may be connected to whatever its addresses are."""
        name = _canonical(host)
        return bool(name) and not self._entries.isdisjoint({(name, None), (name, port)})


def _entry(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    is_one_host = not colon or text.endswith("]") or (":" in host and not host.endswith("]"))
    if is_one_host or not port.isdecimal():
        return _canonical(text), None
    return _canonical(host), int(port)


def _canonical(host: str) -> str:
    """Return the one way in which a host is written here.

    `0x7f.1` stays what it is: whoever allowed 127.0.0.1 did not think of its other spellings.
    """
    name = host.removeprefix("[").removesuffix("]").lower().removesuffix(".")
    try:
        return str(ip_address(name))
    except ValueError:
        return name
