"""The events that a client of a turn's stream gets: the live tail, or a database snapshot.

The tail comes from Redis. If Redis has lost the stream or is unavailable, the events are derived
from the database by the same rule: `step` clears, `delta` appends, `done` ends.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final, TypeAlias

from schema.actors import Actor
from schema.events import DONE_SEQUENCE, GONE, EventData, EventId, EventName, StreamedEvent
from schema.ids import TurnId
from services.database import DatabaseUnavailableError
from services.events.hub import EventHub, HubUnavailableError, StreamInterruptedError
from services.events.snapshots import (
    PASSING,
    PolledEvents,
    Snapshots,
    TurnGoneError,
    event_at,
    final_events,
    passing_events,
)

_POLL_S: Final = 1.0
_CLOCK_SKEW_MS: Final = 60_000

Batch: TypeAlias = list[StreamedEvent]


class EventFeed:
    """Streams the events of turns to their owners.

    Units: `keep_alive_s` is the longest silence, in seconds.
    """

    def __init__(self, hub: EventHub, snapshots: Snapshots, *, keep_alive_s: float) -> None:
        self._hub = hub
        self._snapshots = snapshots
        self._keep_alive_s = keep_alive_s

    async def knows(self, turn_id: TurnId, event_id: EventId) -> bool:
        """Whether this turn's stream may have sent `event_id`.

        Only a stream that Redis has from its first event can decide that; after a loss in Redis
        any id from the past is accepted, and everything is sent.
        """
        if event_id.is_snapshot:
            return True
        if event_id.milliseconds > time.time() * 1000 + _CLOCK_SKEW_MS:
            return False
        try:
            first = await self._hub.read(turn_id, limit=1)
            found = await self._hub.read(turn_id, since=event_id, limit=1)
        except HubUnavailableError:
            return True
        return not _is_whole(first) or bool(found and found[0].id == event_id)

    async def stream(
        self,
        actor: Actor,
        turn_id: TurnId,
        *,
        after: EventId | None = None,
        opening: EventData | None = None,
    ) -> AsyncIterator[Batch]:
        """Yield the events after `after` until `done`; an empty batch is a keep-alive.

        `opening` is sent first, for a new turn that needs no lookup.
        """
        last = after
        if opening is not None:
            yield [event_at(PASSING, opening)]
            last = PASSING
        while last is None or not last.is_done:
            try:
                async for batch in self._live(actor, turn_id, last, is_new=opening is not None):
                    last = batch[-1].id if batch else last
                    yield batch
            except StreamInterruptedError:
                opening = None
            except HubUnavailableError:
                opening = None
                async for batch in self._polled(actor, turn_id, last):
                    last = batch[-1].id if batch else last
                    yield batch
            except TurnGoneError:
                error, done = GONE
                yield [event_at(PASSING, error), event_at(EventId(0, DONE_SEQUENCE), done)]
                return
            except DatabaseUnavailableError:
                yield []
                await asyncio.sleep(_POLL_S)

    async def _live(
        self, actor: Actor, turn_id: TurnId, after: EventId | None, *, is_new: bool
    ) -> AsyncIterator[Batch]:
        """Yield what Redis holds after `after`, then what is published, until `done`.

        Errors: StreamInterruptedError where something may have been missed.
        """
        async with self._hub.listen(turn_id) as subscription:
            resumed = await self._behind(turn_id, after)
            entries = await self._hub.read(turn_id) if resumed is None else resumed
            is_complete = _ends(entries) and (resumed is not None or _is_whole(entries))
            if not (is_new or is_complete):
                snapshot = await self._snapshots.read(actor, turn_id)
                if snapshot.is_final:
                    yield final_events(snapshot, after=after)
                    return
                if resumed is None and not _is_whole(entries):
                    yield passing_events(snapshot)
            if entries:
                yield entries
            last = entries[-1].id if entries else after or PASSING
            while not last.is_done:
                received = await subscription.take(within_s=self._keep_alive_s)
                if not received and await self._has_ended(actor, turn_id):
                    raise StreamInterruptedError
                fresh = [event for event in received if event.id > last]
                last = fresh[-1].id if fresh else last
                if fresh or not received:
                    yield fresh

    async def _behind(self, turn_id: TurnId, after: EventId | None) -> Batch | None:
        """Return what Redis holds after `after`, or None if it can't resume exactly there."""
        if after is None or after.is_snapshot:
            return None
        entries = await self._hub.read(turn_id, since=after)
        if not entries or entries[0].id != after:
            return None
        return entries[1:]

    async def _has_ended(self, actor: Actor, turn_id: TurnId) -> bool:
        """Whether the turn has ended without an event, e.g. while Redis was unavailable."""
        try:
            return await self._snapshots.has_ended(actor, turn_id)
        except DatabaseUnavailableError:
            return False

    async def _polled(
        self, actor: Actor, turn_id: TurnId, after: EventId | None
    ) -> AsyncIterator[Batch]:
        """Yield what the database holds, until the turn has ended or Redis is back."""
        polled = PolledEvents()
        silent_since = time.monotonic()
        while True:
            snapshot = await self._snapshots.read(actor, turn_id)
            if snapshot.is_final and not polled.has_begun:
                yield final_events(snapshot, after=after)
                return
            batch = polled.new_events(snapshot)
            if batch or time.monotonic() - silent_since >= self._keep_alive_s:
                silent_since = time.monotonic()
                yield batch
            if snapshot.is_final:
                return
            await asyncio.sleep(_POLL_S)
            if self._hub.is_connected:
                return


def _is_whole(entries: Batch) -> bool:
    """Whether Redis has the stream from its beginning."""
    return bool(entries) and entries[0].name is EventName.TURN


def _ends(entries: Batch) -> bool:
    return bool(entries) and entries[-1].id.is_done
