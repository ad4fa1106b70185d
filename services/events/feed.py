"""The events that a client of a turn's stream gets: the live tail, or a database snapshot.

The tail comes from Redis. If Redis has lost the stream or is unavailable, the events are derived
from the database by the same rule: `step` clears, `delta` appends, `done` ends.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, TypeAlias

from schema.actors import Actor
from schema.events import DONE_SEQUENCE, GONE, EventData, EventId, StreamedEvent
from schema.ids import TurnId
from schema.result import Result
from services.database import DatabaseUnavailableError
from services.events.hub import (
    EventHub,
    HubUnavailableError,
    StreamInterruptedError,
    StreamPage,
    Subscription,
)
from services.events.snapshots import (
    PASSING,
    PolledEvents,
    Snapshots,
    TurnFacts,
    TurnGoneError,
    batches,
    event_at,
    final_events,
    passing_events,
)
from services.events.writer import turn_source
from services.resources import Unreachable

_POLL_S: Final = 1.0
_CLOCK_SKEW_MS: Final = 60_000
_PAGE_PAUSE_S: Final = 0.002
"""Between two pages of long turns, for all readers together: other requests run in between."""

# The end of a turn is stored just before it is published.
_LATE_DONE_S: Final = 1.0

Batch: TypeAlias = list[StreamedEvent]


class EventFeed:
    """Streams the events of turns to their owners.

    Units: `keep_alive_s` is the longest silence, in seconds.
    """

    def __init__(self, hub: EventHub, snapshots: Snapshots, *, keep_alive_s: float) -> None:
        self._hub = hub
        self._snapshots = snapshots
        self._keep_alive_s = keep_alive_s
        self._pages_turn = asyncio.Lock()

    @property
    def is_closing(self) -> bool:
        """Whether streams end before their turns do, since this process is about to stop."""
        return self._hub.is_closing

    def end_streams(self) -> None:
        """End all streams, and each later one at once: clients resume at another process."""
        self._hub.end_streams()

    async def find(self, actor: Actor, turn_id: TurnId) -> Result[TurnFacts, Unreachable]:
        """Return the facts of a turn that the actor may follow.

        Errors: DatabaseUnavailableError.
        """
        return await self._snapshots.find(actor, turn_id)

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
            page = await self._hub.read(turn_source(turn_id), after=event_id)
        except HubUnavailableError:
            return True
        return page.is_found or not page.is_whole

    async def stream(
        self,
        actor: Actor,
        turn_id: TurnId,
        *,
        after: EventId | None = None,
        opening: EventData | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """Yield the events after `after` until `done`; an empty batch is a keep-alive.

        The stream of a process that is about to stop ends early.
        `opening` is sent first, for a new turn that needs no lookup.
        """
        last = after
        polled = PolledEvents()
        if opening is not None:
            yield [event_at(PASSING, opening)]
            last = PASSING
        while not (self.is_closing or (last is not None and last.is_done)):
            try:
                live = self._live(actor, turn_id, last, is_new=opening is not None)
                async with aclosing(live):
                    async for batch in live:
                        last = batch[-1].id if batch else last
                        polled = PolledEvents()
                        yield batch
            except StreamInterruptedError:
                opening = None
            except HubUnavailableError:
                opening = None
                changes = self._polled(actor, turn_id, last, polled)
                async with aclosing(changes):
                    async for batch in changes:
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
    ) -> AsyncGenerator[Batch, None]:
        """Yield what Redis holds after `after`, then what is published, until `done`.

        Errors: StreamInterruptedError where something may have been missed.
        """
        async with self._hub.listen(turn_source(turn_id)) as subscription:
            position, page = await self._first_page(turn_id, after)
            if position is None and not (page.is_whole or is_new):
                snapshot = await self._snapshots.read(actor, turn_id)
                events = final_events(snapshot, after=after)
                async for batch in events if snapshot.is_final else passing_events(snapshot):
                    yield batch
                    await self._pause()
                if snapshot.is_final:
                    return
            last = position or PASSING
            async for batch in self._pages(turn_id, page):
                last = batch[-1].id
                yield batch
            has_ended = not (is_new or last.is_done) and await self._has_ended(turn_id)
            while not last.is_done:
                received = await self._take(subscription, is_late=has_ended)
                if not received and (has_ended or await self._has_ended(turn_id)):
                    snapshot = await self._snapshots.read(actor, turn_id)
                    async for batch in final_events(snapshot, after=last):
                        yield batch
                    return
                fresh = [event for event in received if event.id > last]
                last = fresh[-1].id if fresh else last
                if fresh or not received:
                    yield fresh

    async def _first_page(
        self, turn_id: TurnId, after: EventId | None
    ) -> tuple[EventId | None, StreamPage]:
        """Return what Redis holds after `after`; None and all where it can't resume there."""
        if after is not None and not after.is_snapshot:
            page = await self._hub.read(turn_source(turn_id), after=after)
            if page.is_found:
                return after, page
        return None, await self._hub.read(turn_source(turn_id))

    async def _pages(self, turn_id: TurnId, page: StreamPage) -> AsyncGenerator[Batch, None]:
        """Yield this page and those behind it, each read when the one before was taken."""
        while page.events:
            yield page.events
            if page.is_last:
                return
            await self._pause()
            page = await self._hub.read(turn_source(turn_id), after=page.events[-1].id)
            if not page.is_found:
                raise StreamInterruptedError

    async def _pause(self) -> None:
        """Wait for the turn of a further page: all readers of a process together get so many."""
        async with self._pages_turn:
            await asyncio.sleep(_PAGE_PAUSE_S)

    async def _take(self, subscription: Subscription, *, is_late: bool) -> Batch:
        within_s = min(_LATE_DONE_S, self._keep_alive_s) if is_late else self._keep_alive_s
        return await subscription.take(within_s=within_s)

    async def _has_ended(self, turn_id: TurnId) -> bool:
        """Whether the turn has ended, perhaps without an event: Redis may have been unavailable."""
        try:
            return (await self._snapshots.facts(turn_id)).status.is_final
        except DatabaseUnavailableError:
            return False

    async def _polled(
        self, actor: Actor, turn_id: TurnId, after: EventId | None, polled: PolledEvents
    ) -> AsyncGenerator[Batch, None]:
        """Yield what the database holds, until the turn has ended or Redis is back."""
        silent_since = time.monotonic()
        changed_at = None
        while True:
            facts = await self._snapshots.facts(turn_id)
            if facts.status.is_final and not polled.has_begun:
                snapshot = await self._snapshots.read(actor, turn_id)
                async for batch in final_events(snapshot, after=after):
                    yield batch
                return
            if facts.status.is_final or facts.changed_at != changed_at:
                changed_at = facts.changed_at
                snapshot = await self._snapshots.read(actor, turn_id)
                async for part in snapshot.parts:
                    for batch in batches(polled.new_events(part)):
                        silent_since = time.monotonic()
                        yield batch
                if snapshot.is_final:
                    return
            if time.monotonic() - silent_since >= self._keep_alive_s:
                silent_since = time.monotonic()
                yield []
            await asyncio.sleep(_POLL_S)
            if self._hub.is_connected or self.is_closing:
                return
