"""Reads by key that share queries, so that a crowd of callers holds one connection at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from itertools import islice
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MAX_KEYS: Final = 200


class GatheredReads(Generic[K, V]):
    """Reads by key: what is asked for while a query runs, shares the next one.

    A thousand clients who come back at once cost a few queries, in turn, instead of a thousand
    that compete for connections. A query never begins before what it answers was asked, so that a
    caller sees every change that was committed before its question.
    """

    def __init__(
        self,
        read: Callable[[Collection[K]], Awaitable[Mapping[K, V]]],
        *,
        max_keys: int = _MAX_KEYS,
    ) -> None:
        self._read = read
        self._max_keys = max_keys
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """Return what `read` finds for the key, or None. Errors: those of `read`."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read_all())
        # One caller's end must not be that of others who wait for the same key.
        return await asyncio.shield(future)

    async def _read_all(self) -> None:
        while self._waiting:
            keys = list(islice(self._waiting, self._max_keys))
            asked = {key: self._waiting.pop(key) for key in keys}
            reading = asyncio.ensure_future(self._read(keys))
            await asyncio.wait([reading])
            error = reading.exception()
            if error is not None:
                # Those who came meanwhile would only wait for the same outage.
                self._fail({**asked, **self._waiting}, error)
                return
            found = reading.result()
            for key, future in asked.items():
                future.set_result(found.get(key))

    def _fail(self, asked: Mapping[K, "asyncio.Future[V | None]"], error: BaseException) -> None:
        self._waiting.clear()
        for future in asked.values():
            future.set_exception(error)
            # Every caller may have left: then nobody else looks at it.
            future.exception()
