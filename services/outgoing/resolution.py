"""Owns asking which addresses a host has: in threads of its own, once at a time, bounded.

The standard library asks in threads that can't be stopped, in a pool that the whole process
shares: a name server that is silent would stop everything else in it. Here, all who ask for one
host share one question, and the questions have a pool to themselves.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final, TypeAlias

from services.outgoing.errors import UnknownHostError

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, best first. Errors: UnknownHostError."""

_THREADS: Final = 16


class SystemResolver:
    """Asks the system, as `getaddrinfo` does."""

    def __init__(self, *, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolving")
        self._asking: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host, best first.

        Errors: UnknownHostError.
        """
        if _is_address(host):
            return [host]
        asking = self._asking.get((host, port)) or self._ask(host, port)
        try:
            async with asyncio.timeout(self._timeout_s):
                # Whoever gives up leaves the others their answer.
                return await asyncio.shield(asking)
        except (OSError, UnicodeError, TimeoutError):
            raise UnknownHostError from None

    def close(self) -> None:
        """Ask no more; questions that are under way end by themselves."""
        self._threads.shutdown(wait=False)

    def _ask(self, host: str, port: int) -> "asyncio.Task[list[str]]":
        task = asyncio.create_task(self._addresses(host, port))
        self._asking[host, port] = task
        task.add_done_callback(lambda done: self._forget((host, port), done))
        return task

    def _forget(self, asked: tuple[str, int], task: "asyncio.Task[list[str]]") -> None:
        self._asking.pop(asked, None)
        if not task.cancelled():
            # Marks the error as seen, should everybody who asked have given up.
            task.exception()

    async def _addresses(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port)
        return list(dict.fromkeys(found))


def _look_up(host: str, port: int) -> list[str]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in answers]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
