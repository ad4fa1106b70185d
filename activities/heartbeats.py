"""Heartbeats: they keep an activity alive for Temporal, and deliver requests to cancel."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from temporalio import activity

HEARTBEAT_INTERVAL_S: Final = 0.5
"""A cancellation reaches the provider's socket within about this time; the promise is 1 s."""

_LONGEST_INTERVAL_S: Final = 2.0
"""Half the heartbeat timeout of activities that call models or tools."""
_PER_SECOND: Final = 50
"""Each costs the development server 4 ms: twice a second, 200 tool calls took a core and a half."""


@asynccontextmanager
async def heartbeats() -> AsyncIterator[None]:
    """Heartbeat in the background for as long as the block runs.

    The first one comes after an interval: a call that is over by then needs none.
    """
    beating = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


class SharedHeartbeats:
    """Heartbeats of many concurrent activities: the more there are, the rarer each."""

    def __init__(self) -> None:
        self._beating = 0

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Heartbeat in the background for as long as the block runs."""
        self._beating += 1
        beating = asyncio.create_task(_beat(lambda: self.interval_s))
        try:
            yield
        finally:
            self._beating -= 1
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    @property
    def interval_s(self) -> float:
        """How long each waits before its next."""
        return min(max(HEARTBEAT_INTERVAL_S, self._beating / _PER_SECOND), _LONGEST_INTERVAL_S)


async def _beat(interval_s: Callable[[], float] = lambda: HEARTBEAT_INTERVAL_S) -> None:
    while True:
        await asyncio.sleep(interval_s())
        activity.heartbeat()
