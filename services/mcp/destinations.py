"""Owns the decision whether an address that an administrator named may be connected to.

Addresses of machines that are not public lead into the network of the workers, so they have to
be allowed by name. What a name stands for is asked here, and once more by whoever connects.
"""

import asyncio
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from services.mcp.errors import McpServerError

_RESOLVE_TIMEOUT_S: Final = 5.0


async def check_destination(url: str, *, allowed_hosts: Collection[str]) -> None:
    """Return if all addresses of the URL's host are public, or the host is allowed by name.

    Errors: McpServerError.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host in {allowed.lower() for allowed in allowed_hosts}:
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for address in await _resolve(host, port):
        if not is_public(address):
            raise McpServerError(
                f"The host {host[:200]} has an address that is not public. If it is meant, name "
                "the host in EVERTURN_ALLOWED_PRIVATE_HOSTS."
            )


def is_public(address: str) -> bool:
    """Say whether an address belongs to the internet at large."""
    parsed = ip_address(address.partition("%")[0])
    inner = _embedded(parsed)
    return parsed.is_global and not parsed.is_multicast and (inner is None or is_public(str(inner)))


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a way of transition hides in one of IPv6."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    # The well-known prefix of NAT64, RFC 6052.
    return IPv4Address(address.packed[12:]) if address.packed[:12] == _NAT64 else None


_NAT64: Final = bytes.fromhex("0064ff9b0000000000000000")


async def _resolve(host: str, port: int) -> set[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise McpServerError(f"The host {host[:200]} is not known.") from error
    return {str(address[0]) for *_, address in found}
