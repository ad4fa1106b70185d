"""Owns telling Temporal that an activity is alive, which is also how it hears of a stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from temporalio import activity

HEARTBEAT_INTERVAL_S: Final = 0.5
"""A stop reaches the provider's socket within this and a little more; the promise is 1 s."""


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


async def _beat() -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL_S)
        activity.heartbeat()
