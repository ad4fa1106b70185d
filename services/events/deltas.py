"""The text of one attempt on its way to clients: coalesced, in order, sent again if lost."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from schema.events import DeltaEvent, EventData, StepEvent, delta_events
from schema.ids import TurnId
from services.events.writer import Appended, EventWriter

_RESEND_S: Final = 0.1


class DeltaBuffer:
    """Streams the text of one attempt: the first piece at once, later ones joined.

    `ahead` are events that go out with the start of the attempt.
    Units: `interval_s` in seconds between appends.
    Errors: OvertakenError from `add` and `flush` once a newer attempt has written.
    """

    def __init__(
        self,
        writer: EventWriter,
        *,
        turn_id: TurnId,
        start: StepEvent,
        interval_s: float,
        ahead: Sequence[EventData] = (),
    ) -> None:
        self._writer = writer
        self._turn_id = turn_id
        self._start = start
        self._ahead = ahead
        self._interval_s = interval_s
        self._pieces: list[str] = []
        self._waiting: list[str] = []
        self._arrived = asyncio.Event()
        self._lock = asyncio.Lock()
        self._last_id: str | None = None
        self._flusher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Publish the start of the attempt, which voids the step's earlier text at clients."""
        await self.flush()
        if self._last_id is None:
            self._arrived.set()
        self._flusher = asyncio.create_task(self._flush_regularly())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop flushing; the caller flushes what is still buffered.

        The lock keeps the end out of an append under way: cut there, its text would be sent
        twice or never.
        """
        if self._flusher is not None:
            async with self._lock:
                self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)

    @property
    def text(self) -> str:
        """Everything that was added."""
        return "".join(self._pieces)

    @property
    def is_published(self) -> bool:
        """Whether all that was added is in the stream, as far as known."""
        return self._last_id is not None and not self._waiting

    def add(self, piece: str) -> None:
        """Take one more piece; it goes out within the interval."""
        if self._flusher is not None and self._flusher.done():
            self._flusher.result()
        self._pieces.append(piece)
        self._waiting.append(piece)
        self._arrived.set()

    async def flush(self, *, insist: bool = False) -> None:
        """Send what is buffered now; after a loss, send the attempt's whole text again.

        `insist` at the attempt's end: Redis is tried although it has just failed. It may be back,
        and clients who listen to it would get the end of the turn without its text.
        """
        async with self._lock:
            waiting, self._waiting = "".join(self._waiting), []
            if self._last_id is not None and waiting:
                self._last_id = await self._append(
                    self._deltas(waiting), behind=self._last_id, insist=insist
                )
            if self._last_id is None:
                self._waiting.clear()
                self._last_id = await self._append(
                    [*self._ahead, self._start, *self._deltas(self.text)], insist=insist
                )

    async def _append(
        self, events: Sequence[EventData], *, behind: str | None = None, insist: bool
    ) -> str | None:
        """Append, and return the id of the last event, or None where it is not in the stream."""
        appended = await self._writer.append_attempt(
            self._turn_id,
            events,
            step=self._start.step,
            attempt=self._start.attempt,
            behind=behind,
            insist=insist,
        )
        return appended.last_id if isinstance(appended, Appended) else None

    def _deltas(self, text: str) -> list[DeltaEvent]:
        return delta_events(text, step=self._start.step, attempt=self._start.attempt)

    async def _flush_regularly(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self.flush()
            await asyncio.sleep(self._interval_s)
            if self._last_id is None:
                # The model may pause here for long; lost text is sent again before its next word.
                await asyncio.sleep(_RESEND_S)
                self._arrived.set()
