"""The events of all chats of a user: what a side bar shows beside the chat that is open.

They come from Redis alone, since each only says what to read again. Where some may be missing, the
client gets a `resync` instead, and reads its lists: at the start, behind a place that Redis no
longer has, on another server or one that was restarted, and where the database shows a change that
no event has announced.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Final

from schema.actors import acting_user
from schema.events import (
    EventId,
    EventName,
    ResyncEvent,
    StreamedEvent,
    StreamedUserEvent,
    UserEventId,
)
from schema.ids import UserId
from services.database import Database, DatabaseUnavailableError
from services.events.hub import EventHub, HubUnavailableError, StreamInterruptedError
from services.events.writer import Source, user_source

_RETRY_S: Final = 1.0
_CHECK_S: Final = 30.0
"""How long a process that died between the database and Redis goes unnoticed."""
_LATE_S: Final = 1.0
"""A change is stored just before it is published."""
_NOWHERE: Final = EventId(0, 0)

# For each kind of event what changes with it.
_STATE: Final = """
SELECT (SELECT concat(count(*), ' ', sum(version)) FROM chats WHERE user_id = $1) AS chat,
       (SELECT concat((SELECT concat(id, status) FROM turns WHERE user_id = $1
                       ORDER BY id DESC LIMIT 1), string_agg(concat(id, status), ' ' ORDER BY id))
        FROM turns WHERE user_id = $1 AND status IN ('running', 'awaiting_approval')) AS turn,
       (SELECT concat(count(*), max(id::text)) FROM memories
        WHERE user_id = $1 AND status = 'suggested') AS memory
"""
_Batch = list[StreamedUserEvent]
_State = dict[str, str]


class UserFeed:
    """Streams what happens in all chats of a user.

    Units: `keep_alive_s` is the longest silence, `check_s` the time between two looks at the
    database, both in seconds.
    """

    def __init__(
        self, hub: EventHub, database: Database, *, keep_alive_s: float, check_s: float = _CHECK_S
    ) -> None:
        self._hub = hub
        self._database = database
        self._keep_alive_s = keep_alive_s
        self._check_s = check_s

    async def stream(
        self, user_id: UserId, *, after: UserEventId | None = None
    ) -> AsyncGenerator[_Batch, None]:
        """Yield the events after `after` until this process stops; an empty batch is a keep-alive.

        Each is delivered at least once, those of a chat in their order.
        """
        last = after
        while not self._hub.is_closing:
            try:
                async for batch in self._live(user_id, last):
                    last = batch[-1].id if batch else last
                    yield batch
            except StreamInterruptedError:
                # The client reads slowly, or the connection to Redis broke.
                continue
            except HubUnavailableError:
                # What happens meanwhile may be announced nowhere.
                last = None
                yield []
                await asyncio.sleep(_RETRY_S)

    async def _live(
        self, user_id: UserId, after: UserEventId | None
    ) -> AsyncGenerator[_Batch, None]:
        """Yield what Redis holds after `after`, then what is published.

        Errors: StreamInterruptedError, HubUnavailableError.
        """
        source = user_source(user_id)
        async with self._hub.listen(source) as subscription:
            server = self._hub.server
            check = _Check(await self._state(user_id), self._check_s)
            place = _NOWHERE
            async for batch in self._missed(source, after, server):
                place = batch[-1].id.place
                yield batch
            if after is not None:
                place = max(place, after.place)
            while True:
                received = await subscription.take(within_s=self._keep_alive_s)
                fresh = [event for event in received if event.id > place]
                place = fresh[-1].id if fresh else place
                check.announced(fresh)
                if fresh or not received:
                    yield _at(server, fresh)
                if check.is_due and check.differs(await self._state(user_id)):
                    late = await subscription.take(within_s=_LATE_S)
                    check.announced(late)
                    fresh = [event for event in late if event.id > place]
                    place = fresh[-1].id if fresh else place
                    yield _at(server, fresh)
                    if check.is_unexplained:
                        yield [_resync(place, server)]
                    check.accept()

    async def _missed(
        self, source: Source, after: UserEventId | None, server: str
    ) -> AsyncGenerator[_Batch, None]:
        """Yield the events behind a place, or a `resync` where Redis can't have them all."""
        if after is not None and after.server == server:
            page = await self._hub.read(source, after=after.place)
            while page.is_found:
                if page.events:
                    yield _at(server, page.events)
                if page.is_last:
                    return
                page = await self._hub.read(source, after=page.events[-1].id)
        yield [_resync(await self._hub.newest(source) or _NOWHERE, server)]

    async def _state(self, user_id: UserId) -> _State | None:
        try:
            async with self._database.statements(acting_user(user_id)) as connection:
                row = await connection.fetchrow(_STATE, user_id)
        except DatabaseUnavailableError:
            return None
        return None if row is None else dict(row)


class _Check:
    """Compares what the database shows with what was announced since the last look at it."""

    def __init__(self, state: _State | None, every_s: float) -> None:
        self._state = self._found = state
        self._every_s = every_s
        self._looked = time.monotonic()
        self._announced: set[str] = set()

    @property
    def is_due(self) -> bool:
        """Whether to look at the database again."""
        return time.monotonic() - self._looked >= self._every_s

    def announced(self, events: Iterable[StreamedEvent]) -> None:
        """Count events that the client gets."""
        self._announced.update(event.name for event in events)

    def differs(self, found: _State | None) -> bool:
        """Whether something has changed that no event has announced yet."""
        self._looked = time.monotonic()
        self._found = found
        if self.is_unexplained:
            return True
        self.accept()
        return False

    @property
    def is_unexplained(self) -> bool:
        """Whether a change is still without an event."""
        if self._state is None or self._found is None or EventName.RESYNC in self._announced:
            return False
        changed = {kind for kind, what in self._found.items() if self._state[kind] != what}
        return bool(changed - self._announced)

    def accept(self) -> None:
        """Take what was found as known."""
        self._state = self._found or self._state
        self._announced.clear()


def _at(server: str, events: Iterable[StreamedEvent]) -> _Batch:
    return [
        StreamedUserEvent(UserEventId(event.id, server), event.name, event.data) for event in events
    ]


def _resync(place: EventId, server: str) -> StreamedUserEvent:
    event = ResyncEvent()
    return StreamedUserEvent(UserEventId(place, server), event.event_name, event.to_json())
