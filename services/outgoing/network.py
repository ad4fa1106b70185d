"""Owns connecting: the host's addresses are asked for once, checked, and connected to as checked.

Here and nowhere before: a name that is checked first and connected to later may stand for
something else by then. TLS verifies the name of the host all the same; it is not resolved again.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

import httpcore2
from httpcore2 import SOCKET_OPTION

from services.outgoing.addresses import is_public
from services.outgoing.allowed_hosts import AllowedHosts
from services.outgoing.errors import ForbiddenAddressError, UnknownHostError
from services.outgoing.resolution import Resolve

_CONNECT_TIMEOUT_S: Final = 5.0
_MOST_TRIED: Final = 6


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses, and to the hosts that are allowed by name.

    Errors: ForbiddenAddressError, UnknownHostError; httpcore2.ConnectError and ConnectTimeout.
    """

    def __init__(
        self,
        allowed: AllowedHosts,
        resolve: Resolve,
        network: httpcore2.AsyncNetworkBackend,
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._network = network

    async def connect_tcp(  # noqa: PLR0917 -- the interface of the library
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- as above
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first of the host's addresses that answers."""
        addresses = (await self._permitted(host, port))[:_MOST_TRIED]
        loop = asyncio.get_running_loop()
        until = loop.time() + (_CONNECT_TIMEOUT_S if timeout is None else timeout)
        failed: Exception = httpcore2.ConnectTimeout()
        for position, address in enumerate(addresses):
            # Each gets its share, so that one that is silent leaves time for the next.
            share_s = (until - loop.time()) / (len(addresses) - position)
            try:
                return await self._network.connect_tcp(
                    address,
                    port,
                    timeout=max(share_s, 0),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 -- the interface of the library
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 -- as above
        socket_options: Iterable[SOCKET_OPTION] | None = None,  # noqa: ARG002 -- as above
    ) -> NoReturn:
        """Refuse: what listens there is on this machine."""
        raise ForbiddenAddressError

    async def sleep(self, seconds: float) -> None:
        """Wait, as the library asks to between two attempts."""
        await asyncio.sleep(seconds)

    async def _permitted(self, host: str, port: int) -> Sequence[str]:
        addresses = await self._resolve(host, port)
        if not addresses:
            raise UnknownHostError
        if not self._allowed.allows(host, port) and not all(map(is_public, addresses)):
            raise ForbiddenAddressError
        return addresses
