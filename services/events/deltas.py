"""The text and thoughts of one attempt on their way to clients: coalesced, sent again if lost."""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Final, Self

from schema.events import EventData, StepEvent, delta_events, thinking_events
from schema.ids import TurnId
from services.events.writer import Appended, EventWriter

_RESEND_S: Final = 0.1


class DeltaBuffer:
    """Streams what one attempt writes: the first piece at once, later ones joined.

    `ahead` are events that go out with the start of the attempt.
    Units: `interval_s` in seconds between appends.
    Errors: OvertakenError from `add`, `think` and `flush` once a newer attempt has written.
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
        self._thoughts: list[str] = []
        # Pieces with whether they are thoughts.
        self._waiting: list[tuple[bool, str]] = []
        self._arrived = asyncio.Event()
        self._lock = asyncio.Lock()
        self._last_id: str | None = None
        self._flusher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to publish, first the start of the attempt, while the model is already asked.

        The start voids the step's earlier text at clients.
        """
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
        """All of the answer that was added."""
        return "".join(self._pieces)

    @property
    def thinking(self) -> str:
        """All thoughts that were added."""
        return "".join(self._thoughts)

    @property
    def written(self) -> str:
        """Everything that the model wrote."""
        return f"{self.thinking}{self.text}"

    @property
    def is_published(self) -> bool:
        """Whether all that was added is in the stream, as far as known."""
        return self._last_id is not None and not self._waiting

    def add(self, piece: str) -> None:
        """Take one more piece of the answer; it goes out within the interval."""
        self._pieces.append(piece)
        self._send(piece, is_thought=False)

    def think(self, thought: str) -> None:
        """Take more of the model's thoughts; they go out like text."""
        self._thoughts.append(thought)
        self._send(thought, is_thought=True)

    def _send(self, piece: str, *, is_thought: bool) -> None:
        if self._flusher is not None and self._flusher.done():
            self._flusher.result()
        self._waiting.append((is_thought, piece))
        self._arrived.set()

    async def flush(self, *, insist: bool = False) -> None:
        """Send what is buffered now; after a loss, send the attempt's whole text again.

        `insist` at the attempt's end: Redis is tried although it has just failed. It may be back,
        and clients who listen to it would get the end of the turn without its text.
        """
        async with self._lock:
            waiting, self._waiting = self._waiting, []
            if self._last_id is not None and waiting:
                self._last_id = await self._append(
                    self._events(waiting), behind=self._last_id, insist=insist
                )
            if self._last_id is None:
                self._waiting.clear()
                whole = self._events([(True, self.thinking), (False, self.text)])
                self._last_id = await self._append(
                    [*self._ahead, self._start, *whole], insist=insist
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

    def _events(self, pieces: Sequence[tuple[bool, str]]) -> list[EventData]:
        """Return the pieces as events, neighbours of one kind joined."""
        events: list[EventData] = []
        for is_thought, group in groupby(pieces, key=itemgetter(0)):
            text = "".join(piece for _, piece in group)
            of_kind = thinking_events if is_thought else delta_events
            events += of_kind(text, step=self._start.step, attempt=self._start.attempt)
        return events

    async def _flush_regularly(self) -> None:
        await self.flush()
        if self._last_id is None:
            self._arrived.set()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self.flush()
            await asyncio.sleep(self._interval_s)
            if self._last_id is None:
                # The model may pause here for long; lost text is sent again before its next word.
                await asyncio.sleep(_RESEND_S)
                self._arrived.set()
