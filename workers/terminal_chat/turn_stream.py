"""Owns one turn on the wire: sends its message, follows its events, survives dropped connections.

What the events mean is decided in `transcript`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import httpx2

from workers.terminal_chat.answers import AcceptedTurn, read
from workers.terminal_chat.api_client import ApiClient, OutgoingMessage
from workers.terminal_chat.errors import ApiError, ConnectionLostError, UnreachableError
from workers.terminal_chat.events import Done, Event, TurnOpened, read_event
from workers.terminal_chat.sse import EventParser

_STEADY_S = 10.0
_RECONNECTING = "reconnecting…"


class Patience:
    """Paces attempts after a failure, and says when to give up.

    Units: pauses double from `first_pause_s` to `longest_pause_s`; `limit_s` counts from the
    first failure since the last progress.
    """

    def __init__(
        self, *, first_pause_s: float = 0.25, longest_pause_s: float = 5.0, limit_s: float = 60.0
    ) -> None:
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._limit_s = limit_s
        self._next_pause_s = first_pause_s
        self._failing_since: float | None = None

    def progress(self) -> None:
        """Forget earlier failures."""
        self._next_pause_s = self._first_pause_s
        self._failing_since = None

    async def pause(self, *, at_least_s: float = 0.0) -> bool:
        """Wait before the next attempt; False, at once, where there should be none."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self._limit_s:
            return False
        await asyncio.sleep(max(self._next_pause_s, min(at_least_s, self._limit_s)))
        self._next_pause_s = min(2 * self._next_pause_s, self._longest_pause_s)
        return True


class TurnStream:
    """The events of the turn that answers one message, each exactly once and up to `done`."""

    def __init__(
        self,
        api: ApiClient,
        message: OutgoingMessage,
        *,
        patience: Patience,
        notify: Callable[[str], None],
    ) -> None:
        self._api = api
        self._message = message
        self._patience = patience
        self._notify = notify
        self._told = ""
        self._turn_id = ""
        self._turn_known = asyncio.Event()
        self._last_event_id = ""
        self._retry_after_s = 0.0

    async def turn_id(self) -> str:
        """Return the id of the turn, as soon as the server has told it."""
        await self._turn_known.wait()
        return self._turn_id

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the events, resuming a dropped stream behind the last one.

        Errors: ApiError where the server refuses; UnreachableError and ConnectionLostError when
        patience ends before and after the turn is known.
        Idempotency: until the turn is known, the message is sent again under the same key.
        """
        while True:
            with self._tolerating_outages():
                async with self._connection() as response:
                    async for event in self._read(response):
                        yield event
                        if isinstance(event, Done):
                            return
            self._tell(_RECONNECTING)
            if not await self._patience.pause(at_least_s=self._retry_after_s):
                raise self._given_up()

    def _connection(self) -> AbstractAsyncContextManager[httpx2.Response]:
        if self._turn_id:
            return self._api.turn_events(self._turn_id, after=self._last_event_id)
        return self._api.send_message(self._message)

    async def _read(self, response: httpx2.Response) -> AsyncIterator[Event]:
        self._learn_turn(response.headers.get("X-Turn-Id", ""))
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            await self._read_accepted(response)
            return
        opened = time.monotonic()
        parser = EventParser(last_event_id=self._last_event_id)
        async for chunk in response.aiter_bytes():
            # Comments alone count once they have come for a while, or else a server that
            # greets and hangs up would be tried for ever.
            if time.monotonic() - opened > _STEADY_S:
                self._note_progress()
            for received in parser.feed(chunk):
                self._last_event_id = received.last_event_id
                event = read_event(received.name, received.data)
                if event is not None:
                    self._note_progress()
                    self._learn_turn(event.turn_id if isinstance(event, TurnOpened) else "")
                    yield event

    async def _read_accepted(self, response: httpx2.Response) -> None:
        await response.aread()
        self._learn_turn(read(AcceptedTurn, response).data.turn.id)
        self._tell("accepted; the answer will follow…")

    @contextmanager
    def _tolerating_outages(self) -> Iterator[None]:
        self._retry_after_s = 0.0
        try:
            yield
        except httpx2.TransportError:
            pass
        except ApiError as error:
            # A limit on new messages is the person's to know; one on resuming only delays.
            limited = error.status == httpx2.codes.TOO_MANY_REQUESTS and self._turn_id
            if not (error.passes or limited):
                raise
            self._retry_after_s = error.retry_after_s

    def _learn_turn(self, turn_id: str) -> None:
        if turn_id:
            self._turn_id = turn_id
            self._turn_known.set()

    def _note_progress(self) -> None:
        self._patience.progress()
        if self._told == _RECONNECTING:
            self._notify("connected again")
        self._told = ""

    def _tell(self, sentence: str) -> None:
        """Notify once until there is progress."""
        if not self._told:
            self._told = sentence
            self._notify(sentence)

    def _given_up(self) -> UnreachableError | ConnectionLostError:
        if self._turn_id:
            return ConnectionLostError(self._message.chat_id)
        return UnreachableError(self._api.url)
