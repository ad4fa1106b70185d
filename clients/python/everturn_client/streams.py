"""Streams of turns: one turn followed over however many connections, up to `done`."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, ParamSpec, TypeAlias

from everturn_client.calls import Call, path
from everturn_client.chat_models import Answer, Message, Turn
from everturn_client.errors import (
    APIStatusError,
    EverturnError,
    StreamInterruptedError,
    TurnFailedError,
    UnexpectedResponseError,
)
from everturn_client.events import (
    DoneEvent,
    Event,
    EventParser,
    TextPieces,
    TurnEvent,
    TurnState,
    parse_event,
)
from everturn_client.exchange import Connection, Emit, Exchange, Read, Script, Sleep, backoff_s
from everturn_client.following import (
    AsyncEventStream,
    EventStream,
    Follower,
    Following,
    events_call,
)
from everturn_client.models import Resource, TokenUsage

P = ParamSpec("P")

ConnectionState: TypeAlias = Literal["accepted", "lost", "restored"]
"""`accepted`: the turn will start later; `lost` and `restored`: its stream was interrupted."""

_STEADY_S: Final = 10.0


class TurnResult(Resource):
    """The result of a turn. `status` is `completed` or `cancelled`.

    With `joined_turn_id` the message joined that turn, which answers it: see `turns.events`.
    """

    turn_id: str
    status: str
    text: str
    message: Message | None = None
    usage: TokenUsage | None = None
    cost_usd: Decimal | None = None
    joined_turn_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a stream is opened and resumed.

    Units: resuming is given up after `reconnect_s` seconds without progress.
    """

    call: Call[Any]
    after: str = ""
    reconnect_s: float = 60.0
    on_connection: Callable[[ConnectionState], None] | None = None


def following(
    turn_id: str,
    *,
    after: str = "",
    reconnect_s: float = 60.0,
    on_connection: Callable[[ConnectionState], None] | None = None,
) -> Opening:
    """Return how the stream of a turn that exists is opened, after an event if one is named."""
    call = events_call("turns", turn_id, "events", after=after)
    return Opening(call=call, after=after, reconnect_s=reconnect_s, on_connection=on_connection)


class TurnFollower(Follower):
    """The logic of a turn's stream: connections, pauses, and the state of the turn. No I/O."""

    def __init__(self, exchange: Exchange, opening: Opening) -> None:
        super().__init__(exchange)
        self.state = TurnState()
        self.turn_id = ""
        self._opening = opening.call
        self._after = opening.after
        self._reconnect_s = opening.reconnect_s
        self._on_connection = opening.on_connection
        self._lost = False
        self._failing_since: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the turn has ended."""
        return self.state.done is not None

    def open(self) -> Script[None]:
        """Make the first connection, which names the turn. Errors: EverturnError."""
        connection = yield from self._exchange.open(self._opening)
        self._learn_turn(connection.response.headers.get("X-Turn-Id", ""))
        if _is_stream(connection):
            self._connection = connection
            return
        accepted = yield from self._exchange.read(connection)
        answer = self._opening.read(accepted)
        self._learn_turn(answer.turn.id if isinstance(answer, Answer) else "")
        if not self.turn_id:
            raise UnexpectedResponseError("something other than a stream")
        self._tell("accepted")

    def events(self) -> Script[None]:
        """Emit each event once, resuming after the last one where a connection breaks.

        Errors: APIStatusError where the API refuses, StreamInterruptedError.
        """
        if not self.turn_id:
            raise RuntimeError("Open the stream first: use it as a context manager.")
        yield from super().events()

    def result(self) -> TurnResult:
        """Return the turn's result. Errors: TurnFailedError, StreamInterruptedError."""
        done = self.state.done
        if done is None:
            raise StreamInterruptedError(self.turn_id)
        self.raise_if_failed()
        return TurnResult(
            turn_id=self.turn_id,
            status=done.status,
            text=self.state.text,
            message=done.assistant_message,
            usage=done.usage,
            cost_usd=done.cost_usd,
            joined_turn_id=done.joined_turn_id,
        )

    def raise_if_failed(self) -> None:
        """Do nothing unless the turn has failed. Errors: TurnFailedError."""
        if self.state.done is None or self.state.done.status != "failed":
            return
        error = self.state.error
        raise TurnFailedError(
            error.message if error else "The turn failed.",
            code=error.code if error else "INTERNAL",
            retryable=error.retryable if error else False,
            turn_id=self.turn_id,
        )

    def cancellation(self) -> Call[Turn]:
        """Return the call that cancels the turn."""
        return Call(method="POST", path=path("turns", self.turn_id, "cancel"), answer=Turn)

    def _resuming(self) -> Call[Any]:
        return events_call("turns", self.turn_id, "events", after=self._after)

    def _read(self, connection: Connection) -> Script[None]:
        if not _is_stream(connection):
            raise UnexpectedResponseError("something other than a stream")
        opened = time.monotonic()
        parser = EventParser(last_event_id=self._after)
        while (chunk := (yield Read(connection))) is not None:
            # Comments alone count once they have come for a while, or else a server that greets and
            # hangs up would be retried indefinitely.
            if time.monotonic() - opened > _STEADY_S:
                self._note_progress()
            for sent in parser.feed(chunk):
                event = parse_event(sent)
                self._after = sent.last_event_id
                self._note_progress()
                self.state.apply(event)
                if isinstance(event, TurnEvent):
                    self._learn_turn(event.turn_id)
                yield Emit(event)
                if isinstance(event, DoneEvent):
                    return

    def _pause(self, failure: EverturnError) -> Script[None]:
        """Wait before the next connection; the first one after progress is made at once."""
        self._tell("lost")
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self._reconnect_s:
            raise StreamInterruptedError(self.turn_id) from failure
        pause = backoff_s(self._failures - 1) if self._failures else 0.0
        if isinstance(failure, APIStatusError) and failure.retry_after_s is not None:
            pause = min(failure.retry_after_s, self._reconnect_s)
        self._failures += 1
        yield Sleep(pause)

    def _note_progress(self) -> None:
        self._failures, self._failing_since = 0, None
        if self._lost:
            self._tell("restored")

    def _tell(self, state: ConnectionState) -> None:
        """Report a change of the connection."""
        if state == "lost" and self._lost:
            return
        self._lost = state == "lost"
        if self._on_connection is not None:
            self._on_connection(state)

    def _learn_turn(self, turn_id: str) -> None:
        self.turn_id = self.state.turn_id = turn_id or self.turn_id


class TurnStream(EventStream[TurnFollower, Event]):
    """An open stream of a turn; a context manager that iterates over the turn's events."""

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self._follower.turn_id

    @property
    def state(self) -> TurnState:
        """The turn, reduced from the events so far."""
        return self._follower.state

    @property
    def text_stream(self) -> Iterator[str]:
        """Iterate over the answer's text as it grows. Errors: TurnFailedError at the end."""
        pieces = TextPieces()
        for _ in self:
            if piece := pieces.next(self.state):
                yield piece
        self._follower.raise_if_failed()

    def final(self) -> TurnResult:
        """Read to the end and return the turn's result. Errors: TurnFailedError."""
        for _ in self:
            pass
        return self._follower.result()

    def cancel(self) -> Turn:
        """Cancel the turn; the stream then ends with the text so far."""
        return self._runner.call(self._follower.cancellation())


class AsyncTurnStream(AsyncEventStream[TurnFollower, Event]):
    """An open stream of a turn; an async context manager that iterates over the turn's events."""

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self._follower.turn_id

    @property
    def state(self) -> TurnState:
        """The turn, reduced from the events so far."""
        return self._follower.state

    @property
    async def text_stream(self) -> AsyncIterator[str]:
        """Iterate over the answer's text as it grows. Errors: TurnFailedError at the end."""
        pieces = TextPieces()
        async for _ in self:
            if piece := pieces.next(self.state):
                yield piece
        self._follower.raise_if_failed()

    async def final(self) -> TurnResult:
        """Read to the end and return the turn's result. Errors: TurnFailedError."""
        async for _ in self:
            pass
        return self._follower.result()

    async def cancel(self) -> Turn:
        """Cancel the turn; the stream then ends with the text so far."""
        return await self._runner.call(self._follower.cancellation())


class Streaming(Following[P, TurnStream, AsyncTurnStream]):
    """A method that opens the stream of a turn."""

    follower = TurnFollower
    stream = TurnStream
    async_stream = AsyncTurnStream


def _is_stream(connection: Connection) -> bool:
    kind = connection.response.headers.get("Content-Type", "")
    return bool(kind.startswith("text/event-stream"))
