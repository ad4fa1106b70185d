"""Appends to streams in Redis, those of turns fenced by attempt; and names of keys and channels.

    OvertakenError    a newer attempt writes this step, or the stream has ended

Redis is a fast path, not the truth: while it is unavailable, appends are dropped and clients are
served from the database.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from schema.events import (
    DONE_SEQUENCE,
    GONE,
    ChatChange,
    ChatChangedEvent,
    EventData,
    NoticeEvent,
    ResyncEvent,
    ToolCallEvent,
    TurnChangedEvent,
)
from schema.ids import ChatId, TurnId, UserId
from schema.turns import TurnReference, TurnStatus
from services.events.scripts import Script

_log = structlog.get_logger(__name__)

API_CHANNEL: Final = "everturn:api"
"""API processes exchange cache invalidations on it; all of them always listen."""

PROCESS_CHANNEL_PREFIX: Final = "everturn:api:"
"""Each API process listens to a channel of its own, which shows that it lives."""


DELETED: Final = b"deleted"
"""Announces that a stream was deleted but for its end: see `EventWriter.close`."""


def stream_key(turn_id: TurnId) -> str:
    """Return the key of the Redis stream that holds the turn's events."""
    return f"everturn:{{{turn_id}}}:events"


def fence_key(turn_id: TurnId) -> str:
    """Return the key of the hash from step to its newest attempt; field `done` closes it."""
    return f"everturn:{{{turn_id}}}:fence"


def channel_name(turn_id: TurnId) -> str:
    """Return the channel on which each appended event is announced."""
    return f"everturn:{{{turn_id}}}"


class Source(NamedTuple):
    """A stream that can be followed: its key, and the channel on which it is announced."""

    key: str
    channel: str


def turn_source(turn_id: TurnId) -> Source:
    """Return the stream of a turn."""
    return Source(stream_key(turn_id), channel_name(turn_id))


def user_source(user_id: UserId) -> Source:
    """Return the stream of what happens in all chats of a user."""
    return Source(f"everturn:user:{user_id}:events", f"everturn:user:{user_id}")


class News(NamedTuple):
    """An event for a user's stream."""

    user_id: UserId
    event: EventData


# A running turn's stream may be silent for a long time, e.g. during an approval.
_RUNNING_RETENTION_S: Final = 7 * 24 * 3600
_ERASED_RETENTION_S: Final = 24 * 3600
# A device that was away for longer, or missed more, reads the lists.
_USER_RETENTION_MS: Final = 24 * 3600 * 1000
_USER_EVENTS: Final = 1000
_LOST_USERS: Final = 10_000
_AHEAD_MS: Final = 60_000
# After a failure Redis is left alone this long, so that its absence does not slow every turn.
_PAUSE_S: Final = 2.0


def turn_news(turn: TurnReference, status: TurnStatus) -> News:
    """Return what a turn's user hears of its new status."""
    event = TurnChangedEvent(turn_id=turn.turn_id, chat_id=turn.chat_id, status=status)
    return News(turn.user_id, event)


def chat_news(
    user_id: UserId, chat_id: ChatId, change: ChatChange, *, title: str | None = None
) -> News:
    """Return what a user hears of a chat that was created, changed or deleted."""
    return News(user_id, ChatChangedEvent(chat_id=chat_id, change=change, title=title))


class OvertakenError(Exception):
    """This attempt is not the newest any more; it must stop."""

    def __init__(self) -> None:
        super().__init__("A newer attempt has taken this step over.")


class NotAppended(StrEnum):
    """Why events are not in the stream."""

    PRESENT = "present"
    UNKNOWN = "unknown"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Appended:
    """Events are in the stream; `last_id` is the id of the last one, as Redis writes it."""

    last_id: str


class EventWriter:
    """Appends events to the streams of turns.

    Errors: OvertakenError where stated; those of Redis become `NotAppended.LOST`.
    """

    def __init__(self, redis: Redis, *, retention_s: int) -> None:
        self._redis = redis
        self._append = Script(redis, "append.lua")
        self._announce = Script(redis, "announce.lua")
        self._retention_s = retention_s
        self._paused_until = 0.0
        # Users whose events Redis did not take.
        self._missed: set[UserId] = set()

    async def open(
        self, turn_id: TurnId, events: Sequence[EventData], *, news: News | None = None
    ) -> Appended | NotAppended:
        """Append the first events of a stream; does nothing if it has begun."""
        return await self._run(turn_id, events, condition="first", news=news)

    async def append(
        self, turn_id: TurnId, events: Sequence[EventData], *, news: News | None = None
    ) -> Appended | NotAppended:
        """Append events that belong to no attempt."""
        return await self._run(turn_id, events, condition="any", news=news)

    async def append_notice_once(
        self, turn_id: TurnId, notice: NoticeEvent
    ) -> Appended | NotAppended:
        """Append a notice unless the turn has shown one with its code.

        Errors: OvertakenError if the stream has ended.
        """
        return await self._run(turn_id, [notice], condition=f"once:notice:{notice.code}")

    async def append_end_of_call(
        self, turn_id: TurnId, ended: ToolCallEvent
    ) -> Appended | NotAppended:
        """Append the end of a tool call; a repetition after a crash does nothing.

        Errors: OvertakenError if the stream has ended.
        """
        name = f"once:{ended.step}:{ended.tool_call_id}"
        return await self._run(turn_id, [ended], condition=name)

    async def append_attempt(
        self,
        turn_id: TurnId,
        events: Sequence[EventData],
        *,
        step: int,
        attempt: int,
        behind: str | None = None,
        insist: bool = False,
        has_text: bool = False,
    ) -> Appended | NotAppended:
        """Append events of an attempt; `insist` tries although Redis has just failed.

        `has_text` marks that all the attempt's text is in the stream: see `close`.
        With `behind`, answers UNKNOWN and appends nothing where the stream's newest event is not
        that one: Redis has lost events, and the attempt must be sent again.
        Errors: OvertakenError if a newer attempt has appended, or the stream has ended.
        """
        return await self._run(
            turn_id,
            events,
            condition=behind or "any",
            step=step,
            attempt=attempt,
            insist=insist,
            texts="whole" if has_text else "",
        )

    async def close(
        self,
        turn_id: TurnId,
        events: Sequence[EventData],
        *,
        attempts: Mapping[int, int] | None = None,
        news: News | None = None,
    ) -> Appended | NotAppended:
        """Append the last events of a stream, `done` at their end; a second time does nothing.

        `attempts` holds for each step the attempt whose text has to be in the stream. Where one is
        not marked to be, Redis failed when it was appended, and all events before the last ones are
        deleted: clients get the turn from the database.
        """
        texts = " ".join(f"{step}:{attempt}" for step, attempt in (attempts or {}).items())
        try:
            return await self._run(turn_id, events, condition="last", texts=texts, news=news)
        except OvertakenError:
            return NotAppended.PRESENT

    async def announce(self, news: News) -> None:
        """Append an event to a user's stream; what Redis doesn't take is made up for later."""
        if time.monotonic() < self._paused_until:
            self._miss(news)
            return
        try:
            await self._append_news(news)
        except (RedisError, OSError) as error:
            self._paused_until = time.monotonic() + _PAUSE_S
            self._miss(news)
            _log.warning("redis_announce_failed", error=type(error).__name__)
            return
        await self._admit_missed()

    async def _append_news(self, news: News) -> None:
        source = user_source(news.user_id)
        await self._announce.run([source.key], [source.channel, *_of_user(news)[1:]])

    def _miss(self, news: News | None) -> None:
        """Remember that a user's stream lacks an event."""
        if news is not None and len(self._missed) < _LOST_USERS:
            self._missed.add(news.user_id)

    async def _admit_missed(self) -> None:
        """Let clients of streams that lack events read their lists, now that Redis answers."""
        while self._missed:
            user_id = self._missed.pop()
            try:
                await self._append_news(News(user_id, ResyncEvent()))
            except (RedisError, OSError):
                self._missed.add(user_id)
                return

    async def erase_user(self, user_id: UserId) -> None:
        """Delete a user's stream; without Redis, it expires."""
        with suppress(RedisError, OSError):
            await self._redis.delete(user_source(user_id).key)

    async def erase(self, turn_id: TurnId) -> bool:
        """Delete a stream for good, and end it for its readers; False if Redis is unavailable.

        The closed fence stays for a while: a worker that doesn't know of it can't write again.
        """
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.delete(stream_key(turn_id), fence_key(turn_id))
        pipeline.hset(fence_key(turn_id), "done", "1")
        pipeline.expire(fence_key(turn_id), _ERASED_RETENTION_S)
        # Ahead of any clock, so that it comes after every published event.
        milliseconds = int(time.time() * 1000) + _AHEAD_MS
        for sequence, data in enumerate(GONE, start=DONE_SEQUENCE + 1 - len(GONE)):
            published = f"{milliseconds}-{sequence}\n{data.event_name}\n{data.to_json()}"
            pipeline.publish(channel_name(turn_id), published)
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            _log.warning("redis_erase_failed", turn_id=str(turn_id), error=type(error).__name__)
            return False
        return True

    async def _run(
        self,
        turn_id: TurnId,
        events: Sequence[EventData],
        *,
        condition: str,
        step: int | None = None,
        attempt: int = 0,
        insist: bool = False,
        texts: str = "",
        news: News | None = None,
    ) -> Appended | NotAppended:
        # The end is always tried: open streams wait for it.
        insists = insist or condition == "last"
        if not insists and time.monotonic() < self._paused_until:
            self._miss(news)
            return NotAppended.LOST
        retention_s = self._retention_s if condition == "last" else _RUNNING_RETENTION_S
        arguments: list[str | int] = [
            channel_name(turn_id),
            "" if step is None else step,
            attempt,
            condition,
            retention_s * 1000,
            DONE_SEQUENCE,
            texts,
            *_of_user(news),
        ]
        keys = [stream_key(turn_id), fence_key(turn_id)]
        if news is not None:
            keys.append(user_source(news.user_id).key)
        for data in events:
            arguments += [data.event_name, data.to_json()]
        try:
            answer = await self._append.run(keys, arguments)
        except (RedisError, OSError) as error:
            self._paused_until = time.monotonic() + _PAUSE_S
            self._miss(news)
            _log.warning("redis_append_failed", turn_id=str(turn_id), error=type(error).__name__)
            return NotAppended.LOST
        self._paused_until = 0.0
        await self._admit_missed()
        word = answer.decode() if isinstance(answer, bytes) else str(answer)
        if word == "fenced":
            raise OvertakenError
        return Appended(word) if "-" in word else NotAppended(word)


def _of_user(news: News | None) -> list[str | int]:
    """Return the arguments of an event for a user's stream, empty ones without one."""
    if news is None:
        return ["", 0, 0, "", ""]
    channel, event = user_source(news.user_id).channel, news.event
    return [channel, _USER_EVENTS, _USER_RETENTION_MS, event.event_name, event.to_json()]
