"""Stops: workers hear at once, over Redis, that a turn is being cancelled.

What is heard cancels nothing: it only makes a worker ask Temporal sooner. A message that is lost or
made up changes how soon a cancellation arrives, and nothing else.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from schema.ids import TurnId

_log = structlog.get_logger(__name__)

STOPS_CHANNEL: Final = "everturn:stops"
"""One for all turns: stops are rare, and a subscription for each running call is not free."""

_PUBLISH_TIMEOUT_S: Final = 0.25
_RETRY_S: Final = 0.5


async def announce_stop(redis: Redis, turn_id: TurnId) -> None:
    """Let the workers hear that Temporal has been asked to cancel the turn; never fails."""
    try:
        async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
            await redis.publish(STOPS_CHANNEL, str(turn_id))
    except (RedisError, OSError, TimeoutError) as error:
        _log.warning("stop_not_announced", turn_id=str(turn_id), error=type(error).__name__)


class StopListener:
    """Listens for the stops of the turns that this process works on, over one connection."""

    def __init__(self, redis: Redis) -> None:
        self.is_connected = False
        self._redis = redis
        self._awaited: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start listening, without waiting for Redis."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextmanager
    def awaited(self, turn_id: TurnId) -> Iterator[asyncio.Event]:
        """Return an event that is set when a stop of the turn is heard while the block runs."""
        stop, key = asyncio.Event(), str(turn_id)
        self._awaited[key].add(stop)
        try:
            yield stop
        finally:
            self._awaited[key].discard(stop)
            if not self._awaited[key]:
                del self._awaited[key]

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if self.is_connected:
                    _log.warning("stops_not_heard", error=type(error).__name__)
            finally:
                self.is_connected = False
            await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(STOPS_CHANNEL)
            async for message in pubsub.listen():
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self.is_connected = True
        elif message["type"] == "message":
            turn_id = message["data"].decode(errors="replace")
            for stop in self._awaited.get(turn_id, ()):
                stop.set()
