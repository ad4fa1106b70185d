"""Owns remembering for moments what was read of the database; what it means is not its."""

import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from cachetools import TTLCache

K = TypeVar("K")
V = TypeVar("V")


class AsyncTtlCache(Generic[K, V]):
    """What `read` found, of the `most` that came last.

    It is asked anew `lifetime_s` after it was read, however often it was needed meanwhile. That
    there is nothing is not remembered.
    """

    def __init__(
        self,
        read: Callable[[K], Awaitable[V | None]],
        *,
        most: int,
        lifetime_s: float,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._found: TTLCache[K, V] = TTLCache(most, lifetime_s, timer)
        self._times_forgotten = 0

    async def of(self, key: K) -> V | None:
        """Return what is known, or is found now. Errors: those of `read`."""
        known = self._found.get(key)
        if known is not None:
            return known
        times_forgotten = self._times_forgotten
        found = await self._read(key)
        # What was read before a change is not remembered after it.
        if found is not None and times_forgotten == self._times_forgotten:
            self._found[key] = found
        return found

    def forget(self, key: K) -> None:
        """Read anew when it is needed next."""
        self._times_forgotten += 1
        self._found.pop(key, None)

    def forget_all(self) -> None:
        """Read everything anew when it is needed next."""
        self._times_forgotten += 1
        self._found.clear()
