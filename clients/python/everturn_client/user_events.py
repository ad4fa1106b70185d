"""The stream of what happens in all chats of a user, followed over any number of connections."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, Self, TypeAlias, overload

import httpx2
from pydantic import TypeAdapter, ValidationError

from everturn_client.calls import Call, path
from everturn_client.endpoints import Group
from everturn_client.errors import (
    APIConnectionError,
    APIStatusError,
    EverturnError,
    UnexpectedResponseError,
    error_from_transport,
)
from everturn_client.events import EventParser, ServerSentEvent, UnknownEvent
from everturn_client.exchange import (
    Close,
    Connection,
    Emit,
    Exchange,
    Read,
    Script,
    Sleep,
    backoff_s,
    is_transient,
)
from everturn_client.models import Resource
from everturn_client.runners import Awaiting, Blocking

P = ParamSpec("P")

_LONGEST_PAUSE_S: Final = 30.0


class TurnChangedEvent(Resource):
    """A turn runs, awaits an approval, or has ended."""

    id: str
    type: Literal["turn"]
    turn_id: str
    chat_id: str
    status: str


class ChatChangedEvent(Resource):
    """A chat was `created`, `updated`, e.g. got a title, or `deleted`."""

    id: str
    type: Literal["chat"]
    chat_id: str
    change: str
    title: str | None = None


class MemoriesSuggestedEvent(Resource):
    """Memories were suggested from a turn."""

    id: str
    type: Literal["memory"]
    turn_id: str
    suggested: int


class ResyncEvent(Resource):
    """The first event, and where others may be missing: read the lists."""

    id: str
    type: Literal["resync"]


UserEvent: TypeAlias = (
    TurnChangedEvent | ChatChangedEvent | MemoriesSuggestedEvent | ResyncEvent | UnknownEvent
)
_KNOWN: Final[dict[str, TypeAdapter[Any]]] = {
    "turn": TypeAdapter(TurnChangedEvent),
    "chat": TypeAdapter(ChatChangedEvent),
    "memory": TypeAdapter(MemoriesSuggestedEvent),
    "resync": TypeAdapter(ResyncEvent),
}


def parse_user_event(sent: ServerSentEvent) -> UserEvent:
    """Return the event that a server-sent event carries. Errors: UnexpectedResponseError."""
    named = {"id": sent.last_event_id, "type": sent.name}
    try:
        data = json.loads(sent.data)
        if sent.name not in _KNOWN:
            return UnknownEvent(**named, data=data)
        event: UserEvent = _KNOWN[sent.name].validate_python({**data, **named})
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        raise UnexpectedResponseError(f"an event `{sent.name}`") from error
    return event


class UserFollower:
    """The logic of the stream: its connections and its pauses. No I/O."""

    def __init__(self, exchange: Exchange, opening: Call[Any]) -> None:
        self._exchange = exchange
        self._after = opening.headers.get("Last-Event-ID", "")
        self._connection: Connection | None = None
        self._failures = 0

    def open(self) -> Script[None]:
        """Make the first connection. Errors: EverturnError."""
        self._connection = yield from self._exchange.open(events_call(self._after))

    def events(self) -> Script[None]:
        """Emit events without an end, resuming after the last one where a connection breaks.

        Errors: APIStatusError where the API refuses, e.g. after signing out.
        """
        while True:
            failure: EverturnError = APIConnectionError(self._exchange.url, "the stream ended")
            try:
                if self._connection is None:
                    self._connection = yield from self._exchange.open(
                        events_call(self._after), retries=0
                    )
                yield from self._read(self._connection)
            except httpx2.RequestError as error:
                failure = error_from_transport(error, self._exchange.url)
            except (APIStatusError, APIConnectionError) as error:
                if not is_transient(error):
                    raise
                failure = error
            yield from self.close()
            pause = backoff_s(self._failures - 1) if self._failures else 0.0
            if isinstance(failure, APIStatusError) and failure.retry_after_s is not None:
                pause = failure.retry_after_s
            self._failures += 1
            yield Sleep(min(pause, _LONGEST_PAUSE_S))

    def close(self) -> Script[None]:
        """Close the open connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(httpx2.HTTPError):
                yield Close(connection)

    def _read(self, connection: Connection) -> Script[None]:
        parser = EventParser(last_event_id=self._after)
        while (chunk := (yield Read(connection))) is not None:
            for sent in parser.feed(chunk):
                event = parse_user_event(sent)
                self._after = sent.last_event_id
                self._failures = 0
                yield Emit(event)


class UserEvents:
    """The open stream of a user; a context manager that iterates over its events."""

    def __init__(self, runner: Blocking, follower: UserFollower) -> None:
        self._runner = runner
        self._follower = follower
        self._events = follower.events()

    def __enter__(self) -> Self:
        self._runner.drive(self._follower.open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._events.close()
        self._runner.drive(self._follower.close())

    def __iter__(self) -> Iterator[UserEvent]:
        while (emitted := self._runner.advance(self._events)[0]) is not None:
            yield emitted


class AsyncUserEvents:
    """The open stream of a user; an async context manager that iterates over its events."""

    def __init__(self, runner: Awaiting, follower: UserFollower) -> None:
        self._runner = runner
        self._follower = follower
        self._events = follower.events()

    async def __aenter__(self) -> Self:
        await self._runner.drive(self._follower.open())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._events.close()
        await self._runner.drive(self._follower.close())

    async def __aiter__(self) -> AsyncIterator[UserEvent]:
        while (emitted := (await self._runner.advance(self._events))[0]) is not None:
            yield emitted


class FollowingUser(Generic[P]):
    """A method that opens the stream of a user."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[Any]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: Group[Blocking], owner: type) -> Callable[P, UserEvents]: ...
    @overload
    def __get__(self, group: Group[Awaiting], owner: type) -> Callable[P, AsyncUserEvents]: ...
    def __get__(self, group: Group[Any] | None, owner: type) -> Any:
        """Return the method of `group`."""
        if group is None:
            return self

        @wraps(self.build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 -- see the overloads
            runner = group._runner  # noqa: SLF001 -- the group's own
            follower = UserFollower(runner.exchange, self.build(group, *args, **kwargs))
            return (UserEvents if isinstance(runner, Blocking) else AsyncUserEvents)(
                runner, follower
            )

        return method


def events_call(after: str) -> Call[Any]:
    """Return the call that opens the stream behind an event, if one is named."""
    headers = {"Accept": "text/event-stream"}
    if after:
        headers["Last-Event-ID"] = after
    return Call(
        method="GET", path=path("users", "me", "events"), answer=type(None), headers=headers
    )
