"""Heartbeats: they keep an activity alive for Temporal, and deliver requests to cancel.

Each is a state transition of the workflow: they are the money and the capacity of the engine.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from temporalio import activity

from schema.ids import TurnId
from services.events.stops import StopListener

INTERVAL_S: Final = 2.0
"""Less than half the heartbeat timeout of activities that call models or tools: one may be lost."""

DEAF_INTERVAL_S: Final = 0.5
"""The promise is that a stop reaches the provider's socket within 1 s, also without Redis."""

_DEAF_PER_SECOND: Final = 50
"""Each costs the development server 4 ms: twice a second, 200 tool calls took a core and a half."""

HURRIED_INTERVAL_S: Final = 0.1
"""After a stop was heard: the workflow requests the cancellation within a few of these."""

_HURRIED: Final = 30


@asynccontextmanager
async def heartbeats(details: Callable[[], object] | None = None) -> AsyncIterator[None]:
    """Heartbeat in the background for as long as the block runs, with details if there are any.

    The first one comes after an interval: a call that is over by then needs none.
    """
    beating = asyncio.create_task(_beat(details))
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _beat(details: Callable[[], object] | None) -> None:
    while True:
        await asyncio.sleep(INTERVAL_S)
        activity.heartbeat(*(() if details is None else (details(),)))


class TurnHeartbeats:
    """Heartbeats of what turns do: seldom while their stops are heard, at once when one is.

    Without Redis they come often enough for a stop, and the rarer the more there are.
    """

    def __init__(self, stops: StopListener) -> None:
        self._stops = stops
        self._beating = 0

    @asynccontextmanager
    async def of(self, turn_id: TurnId) -> AsyncIterator[None]:
        """Heartbeat in the background for as long as the block runs."""
        with self._stops.awaited(turn_id) as stop:
            self._beating += 1
            beating = asyncio.create_task(self._beat(stop))
            try:
                yield
            finally:
                self._beating -= 1
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)

    @property
    def interval_s(self) -> float:
        """How long each waits before its next."""
        if self._stops.is_connected:
            return INTERVAL_S
        return min(max(DEAF_INTERVAL_S, self._beating / _DEAF_PER_SECOND), INTERVAL_S)

    async def _beat(self, stop: asyncio.Event) -> None:
        while True:
            await self._pause(stop)
            activity.heartbeat()
            if stop.is_set():
                await _hurry()
                stop.clear()

    async def _pause(self, stop: asyncio.Event) -> None:
        """Wait for the interval, which ends at once with a stop, and early with Redis."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not stop.is_set() and (left := begun + self.interval_s - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, DEAF_INTERVAL_S)):
                    await stop.wait()


async def _hurry() -> None:
    """Heartbeat until one's answer says that the activity is cancelled, but not for ever."""
    for _ in range(_HURRIED):
        await asyncio.sleep(HURRIED_INTERVAL_S)
        activity.heartbeat()
