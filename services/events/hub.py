"""Listens to Redis: one connection of a process serves all its open streams.

Over the same connection API processes exchange cache invalidations.

A subscriber first listens, then reads what the stream already holds, and drops received events that
it has read: so no event is missed or sent twice. It reads page by page, and what waits for it is
bounded, too: a client that reads slowly, or not at all, holds little memory.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, Final, NamedTuple, Protocol, Self
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from schema.events import SERVER_CHARS, EventId, EventName, StreamedEvent, parse_event_id
from services.events.writer import API_CHANNEL, DELETED, PROCESS_CHANNEL_PREFIX, Source

_log = structlog.get_logger(__name__)

PAGE_BYTES: Final = 64 * 1024
"""How much of a stream is read at a time, and how much may wait for one client."""

_QUEUE_LIMIT: Final = 1000
_RETRY_S: Final = 0.5
_FIRST_TRY_S: Final = 1.0
_READ_TIMEOUT_S: Final = 5.0
# A crowd reads in turn: all at once would wait for connections until Redis seems unavailable.
_READS_AT_A_TIME: Final = 16
# A Redis that does not answer is left alone this long: clients get their events from the database.
_PAUSE_S: Final = 2.0


class HubUnavailableError(Exception):
    """Redis is unavailable."""

    def __init__(self) -> None:
        super().__init__("Redis is unavailable; events come from the database.")


class StreamInterruptedError(Exception):
    """Events may have been missed: the connection broke, or the client was too slow.

    The stream must then be read again, after the last event that was taken.
    """


class StreamPage(NamedTuple):
    """A part of a stream in Redis.

    `is_whole` is whether Redis has the stream from its first event, `is_found` whether it has the
    event before the page, and `is_last` whether nothing follows the page.
    """

    is_whole: bool
    is_found: bool
    is_last: bool
    events: list[StreamedEvent]


class Listener(Protocol):
    """Receives messages between API processes, regardless of the open streams."""

    def hear(self, message: bytes) -> None:
        """Receive a message of an API process, this one included; must not raise."""

    def interrupt(self) -> None:
        """Handle that messages may have been missed."""


class Subscription:
    """One client's subscription to one stream."""

    def __init__(self) -> None:
        self._received: list[StreamedEvent] = []
        self._chars = 0
        self._interrupted = False
        self._changed = asyncio.Event()

    def offer(self, received: StreamedEvent) -> None:
        """Queue an event, or drop all of them for a client that lags behind.

        One event fits, however large: the subscriptions of a process share it.
        """
        if self._interrupted:
            return
        self._chars += len(received.data)
        if self._received and (self._chars > PAGE_BYTES or len(self._received) >= _QUEUE_LIMIT):
            self.interrupt()
            return
        self._received.append(received)
        self._changed.set()

    def interrupt(self) -> None:
        """Mark that events may have been missed."""
        self._interrupted = True
        self._received.clear()
        self._changed.set()

    async def take(self, *, within_s: float) -> list[StreamedEvent]:
        """Return the events since the last call; an empty list after a silence.

        Errors: StreamInterruptedError where events may have been missed.
        """
        if not self._changed.is_set():
            try:
                async with asyncio.timeout(within_s):
                    await self._changed.wait()
            except TimeoutError:
                return []
        if self._interrupted:
            raise StreamInterruptedError
        self._changed.clear()
        received, self._received = self._received, []
        self._chars = 0
        return received


class EventHub:
    """Listens over one connection for the events of many streams and for API processes.

    While it listens, Redis knows a subscriber of `process_channel`; so others see whether this
    process lives.
    Errors: HubUnavailableError from `listen` and `read` while Redis is unavailable.
    """

    def __init__(self, redis: Redis, listener: Listener) -> None:
        self.process_channel = f"{PROCESS_CHANNEL_PREFIX}{uuid4().hex}"
        self._redis = redis
        self._listener = listener
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._acknowledged: dict[str, asyncio.Event] = {}
        self._unconfirmed: Counter[str] = Counter()
        self._read = redis.register_script(
            files("services.events").joinpath("read.lua").read_text()
        )
        self._reads = asyncio.Semaphore(_READS_AT_A_TIME)
        self._paused_until = 0.0
        self._pubsub: PubSub | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_tried = asyncio.Event()
        self.server = ""
        """The start of the run id of the Redis server: another after each restart and failover."""
        self.is_closing = False
        """Whether streams are to end: this process is about to stop."""

    async def __aenter__(self) -> Self:
        """Start listening, and return when Redis answers or can't be reached, soon in any case.

        Clients who come back to a process that was just started then resume from Redis.
        """
        self._task = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_TRY_S):
                await self._has_tried.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def end_streams(self) -> None:
        """Let every reader of a subscription go, now and from now on."""
        self.is_closing = True
        self._interrupt_all()

    @asynccontextmanager
    async def listen(self, source: Source) -> AsyncIterator[Subscription]:
        """Subscribe to the events of the stream that are appended from now on."""
        channel = source.channel
        subscription = Subscription()
        self._subscriptions[channel].add(subscription)
        try:
            await self._subscribe(channel)
            yield subscription
        finally:
            await self._leave(channel, subscription)

    async def read(self, source: Source, *, after: EventId | None = None) -> StreamPage:
        """Return the first page of what the stream holds after an event, or from its beginning."""
        arguments: list[str | int] = ["" if after is None else str(after), PAGE_BYTES]
        async with self._reads:
            if self._is_paused:
                raise HubUnavailableError
            try:
                first, is_found, is_last, entries = await self._read_on_a_live_connection(
                    [source.key], arguments
                )
            except (RedisError, OSError) as error:
                self._paused_until = time.monotonic() + _PAUSE_S
                raise HubUnavailableError from error
        return StreamPage(
            is_whole=first == EventName.TURN.encode(),
            is_found=bool(is_found),
            is_last=bool(is_last),
            events=[_entry(entry_id, fields) for entry_id, fields in entries],
        )

    async def newest(self, source: Source) -> EventId | None:
        """Return the id of the stream's newest event, or None if it is empty."""
        if self._is_paused:
            raise HubUnavailableError
        try:
            entries: Any = await self._redis.xrevrange(source.key, count=1)
        except (RedisError, OSError) as error:
            raise HubUnavailableError from error
        return _event_id(entries[0][0]) if entries else None

    async def _read_on_a_live_connection(self, keys: list[str], arguments: list[str | int]) -> Any:  # noqa: ANN401 -- untyped by redis-py
        """Read; once more where the connection was closed while nobody used it."""
        try:
            return await self._read(keys=keys, args=arguments)
        except RedisConnectionError:
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            return await self._read(keys=keys, args=arguments)

    @property
    def is_connected(self) -> bool:
        """Whether Redis is being listened to, and answers."""
        return self._pubsub is not None and not self._is_paused

    @property
    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    async def _subscribe(self, channel: str) -> None:
        if self._pubsub is None:
            raise HubUnavailableError
        acknowledged = self._acknowledged.get(channel)
        try:
            if acknowledged is None:
                acknowledged = self._acknowledged[channel] = asyncio.Event()
                self._unconfirmed[channel] += 1
                await self._pubsub.subscribe(channel)
            await asyncio.wait_for(acknowledged.wait(), _READ_TIMEOUT_S)
        except (RedisError, OSError, TimeoutError) as error:
            self._acknowledged.pop(channel, None)
            raise HubUnavailableError from error

    async def _leave(self, channel: str, subscription: Subscription) -> None:
        remaining = self._subscriptions[channel]
        remaining.discard(subscription)
        if remaining:
            return
        del self._subscriptions[channel]
        if self._acknowledged.pop(channel, None) is None or self._pubsub is None:
            return
        try:
            await self._pubsub.unsubscribe(channel)
        except (RedisError, OSError):
            _log.debug("unsubscribe_failed", channel=channel)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                _log.warning("event_hub_disconnected", error=type(error).__name__)
            finally:
                self._lose_connection()
            await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            self.server = str((await self._redis.info("server"))["run_id"])[:SERVER_CHARS]
            # It also keeps the subscription alive while no stream is open.
            await pubsub.subscribe(API_CHANNEL, self.process_channel)
            self._pubsub = pubsub
            # It answers again: streams need not wait for the end of a pause.
            self._paused_until = 0.0
            self._has_tried.set()
            async for message in pubsub.listen():
                self._take(message["type"], message["channel"].decode(), message["data"])

    def _take(self, kind: str, channel: str, data: object) -> None:
        if kind == "subscribe":
            self._begin(channel)
        elif kind == "message" and isinstance(data, bytes):
            self._hear(channel, data)

    def _begin(self, channel: str) -> None:
        if channel == API_CHANNEL:
            # Messages sent before this moment were missed.
            self._listener.interrupt()
            return
        self._unconfirmed[channel] -= 1
        if self._unconfirmed[channel] > 0:
            # It confirms an earlier subscription, which has been given up since.
            return
        del self._unconfirmed[channel]
        if channel in self._acknowledged:
            self._acknowledged[channel].set()

    def _hear(self, channel: str, data: bytes) -> None:
        if channel == API_CHANNEL:
            self._listener.hear(data)
            return
        if data == DELETED:
            for subscription in self._subscriptions.get(channel, ()):
                subscription.interrupt()
            return
        try:
            received = _announcement(data)
        except ValueError:
            # Another program wrote it; all streams of this process depend on this loop.
            _log.warning("announcement_not_understood", channel=channel)
            return
        for subscription in self._subscriptions.get(channel, ()):
            subscription.offer(received)

    def _lose_connection(self) -> None:
        if self._pubsub is not None:
            self._listener.interrupt()
        self._pubsub = None
        self._has_tried.set()
        self._acknowledged.clear()
        self._unconfirmed.clear()
        self._interrupt_all()

    def _interrupt_all(self) -> None:
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.interrupt()


def _event_id(raw: bytes) -> EventId:
    event_id = parse_event_id(raw.decode())
    if event_id is None:
        raise ValueError("Redis returned an invalid id")
    return event_id


def _entry(entry_id: Any, fields: Any) -> StreamedEvent:  # noqa: ANN401 -- untyped by redis-py
    _, name, _, data = fields
    return StreamedEvent(_event_id(entry_id), name.decode(), data.decode())


def _announcement(data: bytes) -> StreamedEvent:
    entry_id, name, body = data.split(b"\n", 2)
    return StreamedEvent(_event_id(entry_id), name.decode(), body.decode())
