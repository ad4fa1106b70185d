"""The open connections of the HTTP server: how many there may be, and who makes room."""

import asyncio
import fcntl
import struct
import termios
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Protocol

from api import refusals
from api.metrics import ApiMetrics
from api.refusals import Refusal
from schema.errors import ErrorCode
from services.rate_limits.rules import address_subject

_MOST_LINGERING: Final = 64
"""Connections beyond a bound that get an error; further ones are cut off."""
_MOST_ADDRESSES: Final = 4096
"""Addresses whose network is remembered: parsing one takes longer than all else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBounds:
    """What one connection may send and delay, and how many there may be.

    `trusted_proxies` bring the connections of many clients: only the total applies to them.
    """

    max_head_bytes: int = 64 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    stall_timeout_s: float = 60.0
    max_connections: int = 4096
    max_connections_per_address: int = 2048
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()

    @property
    def shortest_s(self) -> float:
        """How often a connection has to be checked."""
        return min(self.head_timeout_s, self.body_timeout_s, self.stall_timeout_s)


class Connection(Protocol):
    """A connection as the count sees it."""

    def refuse(self, refusal: Refusal) -> None:
        """Send the reason, and close."""

    def make_room(self) -> None:
        """Close at once: a client that sent no request so far gives way to one that may."""

    def cut_off(self) -> None:
        """Close without a word."""


class OpenConnections:
    """Counts the connections of one server, and refuses those beyond a bound."""

    def __init__(self, bounds: ConnectionBounds, metrics: ApiMetrics) -> None:
        self.bounds = bounds
        self._metrics = metrics
        self._admitted: dict[Connection, str | None] = {}
        self._by_address: Counter[str] = Counter()
        # Those that sent no whole head so far, oldest first.
        self._silent: dict[Connection, str | None] = {}
        self._refused: set[Connection] = set()
        self._address_of = lru_cache(_MOST_ADDRESSES)(self._find_address)
        metrics.open_connections.set_function(lambda: len(self._admitted) + len(self._refused))

    def add(self, connection: Connection, host: str | None) -> None:
        """Admit a connection. Beyond a bound, an older one without a request makes room for it.

        So a crowd of half-open connections keeps nobody out. Where all have requests, the new
        connection is refused.
        """
        address = self._address_of(host)
        refusal, silent = self._bound_reached(address)
        oldest = next(iter(silent), None)
        if refusal is None or oldest is not None:
            self._admitted[connection] = self._silent[connection] = address
            if address is not None:
                self._by_address[address] += 1
            if oldest is not None:
                del self._silent[oldest]
                self.note_refusal(ErrorCode.REQUEST_TIMEOUT)
                oldest.make_room()
        elif len(self._refused) < _MOST_LINGERING:
            self._refused.add(connection)
            connection.refuse(refusal)
        else:
            self._refused.add(connection)
            self.note_refusal(refusal.code)
            connection.cut_off()

    def has_request(self, connection: Connection) -> None:
        """Note that the head of a request has arrived."""
        self._silent.pop(connection, None)

    def discard(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._silent.pop(connection, None)
        self._refused.discard(connection)
        address = self._admitted.pop(connection, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def note_refusal(self, reason: str) -> None:
        """Count a connection that is closed for a bound."""
        self._metrics.refused_connections.labels(reason).inc()

    def _bound_reached(self, address: str | None) -> tuple[Refusal | None, Iterable[Connection]]:
        """Return why there is no room for one more, and which connections could make some."""
        bounds = self.bounds
        if self._by_address.get(address or "", 0) >= bounds.max_connections_per_address:
            return refusals.TOO_MANY_OF_ADDRESS, (
                other for other, where in self._silent.items() if where == address
            )
        if len(self._admitted) >= bounds.max_connections:
            return refusals.TOO_MANY, self._silent
        return None, ()

    def _find_address(self, host: str | None) -> str | None:
        """Return what counts as one address; None for a trusted proxy or a Unix socket."""
        if host is None:
            return None
        if self.bounds.trusted_proxies:
            address = ip_address(host.partition("%")[0])
            if any(address in network for network in self.bounds.trusted_proxies):
                return None
        return address_subject(host)


def untaken_bytes(transport: asyncio.Transport) -> int:
    """Return how much of what was written the client has not received.

    A part of it waits in the kernel, which takes more only when a third of its megabytes are free:
    by the rest alone, a client that takes 10 KB a second would seem to take nothing.
    """
    waiting = transport.get_write_buffer_size()
    with suppress(OSError, ValueError):
        descriptor = transport.get_extra_info("socket").fileno()
        (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
        waiting += queued
    return waiting
