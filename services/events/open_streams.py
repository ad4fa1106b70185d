"""The open streams of each user, counted over all processes of the API.

An open stream is a lease in Redis, which its process renews. The leases of a process that was
killed count no longer: Redis knows that nobody listens to its channel. While Redis is unavailable
or slow, each process counts its own streams.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from typing import Final, Self

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from schema.ids import UserId
from services.events.writer import PROCESS_CHANNEL_PREFIX

_log = structlog.get_logger(__name__)

_LIFETIME_S: Final = 60
_RENEWAL_S: Final = 20
_AT_A_TIME: Final = 16
_REDIS_TIMEOUT_S: Final = 0.25
_PAUSE_S: Final = 1.0


def leases_key(user_id: UserId) -> str:
    """Return the key of the sorted set of a user's open streams."""
    return f"everturn:streams:{user_id}"


@dataclass(frozen=True, slots=True)
class StreamLease:
    """One open stream of a user."""

    user_id: UserId
    name: str


class OpenStreams:
    """Limits how many streams a user has open at a time. It never fails for lack of Redis.

    `process_channel` is a channel to which this process listens while it lives.
    """

    def __init__(self, redis: Redis, *, process_channel: str) -> None:
        self._redis = redis
        self._take = redis.register_script(
            files("services.events").joinpath("lease.lua").read_text()
        )
        self._process = process_channel.removeprefix(PROCESS_CHANNEL_PREFIX)
        self._numbers = count()
        self._open: defaultdict[UserId, set[str]] = defaultdict(set)
        self._ended: defaultdict[UserId, set[str]] = defaultdict(set)
        self._has_ended = asyncio.Event()
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self._paused_until = 0.0
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to renew leases."""
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop renewing; the leases that are left end with this process."""
        # Not cancelled: the Redis client may swallow that in the middle of a command.
        self._is_closing = True
        self._has_ended.set()
        if self._task is not None:
            await self._task

    async def open(self, user_id: UserId, *, limit: int) -> StreamLease | None:
        """Take a lease, or return None for a user who has as many streams open as allowed."""
        lease = StreamLease(user_id, f"{self._process}:{next(self._numbers)}")
        own = self._open.get(user_id, ())
        if len(own) >= limit:
            return None
        # It counts at once: of concurrent requests, none may overlook the others.
        self._open[user_id].add(lease.name)
        is_taken = False
        try:
            is_taken = await self._is_shared(lease, limit=limit)
        finally:
            if not is_taken:
                self.close(lease)
        return lease if is_taken else None

    def close(self, lease: StreamLease) -> None:
        """Give a lease back."""
        own = self._open[lease.user_id]
        own.discard(lease.name)
        if not own:
            del self._open[lease.user_id]
        self._ended[lease.user_id].add(lease.name)
        self._has_ended.set()

    async def _is_shared(self, lease: StreamLease, *, limit: int) -> bool:
        """Take the lease in Redis; True without asking while Redis is unavailable."""
        try:
            async with self._turns:
                if time.monotonic() < self._paused_until:
                    return True
                async with asyncio.timeout(_REDIS_TIMEOUT_S):
                    taken = await self._try(lease, limit=limit)
                    return taken or await self._try(lease, limit=limit, again=True)
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            return True

    async def _try(self, lease: StreamLease, *, limit: int, again: bool = False) -> bool:
        ended = self._ended.pop(lease.user_id, set())
        arguments: list[str | int] = [limit, lease.name, _LIFETIME_S * 1000, *ended]
        others = await self._take(keys=[leases_key(lease.user_id)], args=arguments)
        if not others:
            return True
        if not again:
            dead = await self._dead(name.decode() for name in others)
            if dead:
                self._ended[lease.user_id] |= dead
        return False

    async def _dead(self, names: Iterable[str]) -> set[str]:
        """Return the leases of processes that have died: no channel of theirs has a listener."""
        by_process: defaultdict[str, set[str]] = defaultdict(set)
        for name in names:
            by_process[name.partition(":")[0]].add(name)
        by_process.pop(self._process, None)
        if not by_process:
            return set()
        channels = [f"{PROCESS_CHANNEL_PREFIX}{process}" for process in by_process]
        listeners = dict(await self._redis.pubsub_numsub(*channels))
        return {
            name
            for (process, held), channel in zip(by_process.items(), channels, strict=True)
            if not listeners.get(channel.encode())
            for name in held
        }

    async def _keep(self) -> None:
        """Renew leases from time to time, and give those back that have ended."""
        renew_at = time.monotonic() + _RENEWAL_S
        while not self._is_closing:
            try:
                async with asyncio.timeout(max(renew_at - time.monotonic(), 0)):
                    await self._has_ended.wait()
            except TimeoutError:
                renew_at = time.monotonic() + _RENEWAL_S
                await self._renew()
            self._has_ended.clear()
            await self._give_back()

    async def _renew(self) -> None:
        if not self._open:
            return
        try:
            seconds, _ = await self._redis.time()
        except (RedisError, OSError) as error:
            self._lose(error)
            return
        pipeline = self._redis.pipeline(transaction=False)
        for user_id, names in self._open.items():
            expiries = dict.fromkeys(names, (seconds + _LIFETIME_S) * 1000)
            pipeline.zadd(leases_key(user_id), expiries)
            pipeline.expire(leases_key(user_id), _LIFETIME_S)
        await self._execute(pipeline)

    async def _give_back(self) -> None:
        ended, self._ended = self._ended, defaultdict(set)
        if not ended:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for user_id, names in ended.items():
            pipeline.zrem(leases_key(user_id), *names)
        await self._execute(pipeline)

    async def _execute(self, pipeline: Pipeline) -> None:
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            # What was not given back expires.
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._paused_until = time.monotonic() + _PAUSE_S
        _log.warning("open_streams_not_shared", error=type(error).__name__)
