"""Owns what a foreign process may use: files, dumps, and memory with all that it starts.

Address space is not limited: the runtimes of JavaScript and Go reserve far more than they use.
"""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import psutil

_LOOK_EVERY_S: Final = 2.0
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 4096),
    (resource.RLIMIT_FSIZE, 1024 * 1024 * 1024),
)


def restrain(pid: int) -> None:
    """Limit a process that was just started; what it starts from now on inherits that."""
    if not hasattr(resource, "prlimit"):  # pragma: no cover -- no other system has it
        return
    for kind, wanted in _LIMITS:
        # It may have ended, or have given itself to another user.
        with suppress(OSError, ValueError):
            _, hard = resource.prlimit(pid, kind)
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.prlimit(pid, kind, (limit, limit))


async def outgrowing(group: int, limit: int) -> None:
    """Return once the processes of a group hold more than `limit` bytes together."""
    while resident_bytes(group) <= limit:  # noqa: ASYNC110 -- nobody tells of memory
        await asyncio.sleep(_LOOK_EVERY_S)


def resident_bytes(group: int) -> int:
    """Return what the processes of a group hold in memory; what they share counts for each."""
    total = 0
    for member in _members(group):
        with suppress(psutil.Error):
            total += member.memory_info().rss
    return total


def descendants(pid: int) -> list[psutil.Process]:
    """Return what a process has started, also what has left its group since."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _members(group: int) -> Iterator[psutil.Process]:
    for candidate in psutil.pids():
        with suppress(psutil.Error, OSError):
            if os.getpgid(candidate) == group:
                yield psutil.Process(candidate)
