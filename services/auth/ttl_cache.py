"""A cache of what an asynchronous function returned, for a short time."""

import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from cachetools import TTLCache

K = TypeVar("K")
V = TypeVar("V")


class AsyncTtlCache(Generic[K, V]):
    """The results of `read` for the `max_size` most recent keys.

    A result expires `lifetime_s` after it was read, however often it was used. None is not cached.
    """

    def __init__(
        self,
        read: Callable[[K], Awaitable[V | None]],
        *,
        max_size: int,
        lifetime_s: float,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._found: TTLCache[K, V] = TTLCache(max_size, lifetime_s, timer)
        self._invalidations = 0

    async def get(self, key: K) -> V | None:
        """Return the cached result, or that of `read`. Errors: those of `read`."""
        cached = self._found.get(key)
        if cached is not None:
            return cached
        invalidations = self._invalidations
        found = await self._read(key)
        # A result from before an invalidation is not cached after it.
        if found is not None and invalidations == self._invalidations:
            self._found[key] = found
        return found

    def invalidate(self, key: K) -> None:
        """Read the key again at its next use."""
        self._invalidations += 1
        self._found.pop(key, None)

    def invalidate_all(self) -> None:
        """Read every key again at its next use."""
        self._invalidations += 1
        self._found.clear()
