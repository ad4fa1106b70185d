"""Streams that are followed over any number of connections, for both clients.

A follower is their logic, without I/O; what callers open are context managers that iterate over
events; and the decorators of this module make methods of a group open one.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import httpx2

from everturn_client.calls import Call, path
from everturn_client.endpoints import Group
from everturn_client.errors import (
    APIConnectionError,
    APIStatusError,
    EverturnError,
    error_from_transport,
)
from everturn_client.exchange import Close, Connection, Exchange, Script, is_transient
from everturn_client.runners import Awaiting, Blocking

P = ParamSpec("P")
EventT = TypeVar("EventT")
FollowerT = TypeVar("FollowerT", bound="Follower")
StreamT = TypeVar("StreamT")
AsyncStreamT = TypeVar("AsyncStreamT")


class Follower(ABC):
    """The logic of a stream: its connections and its pauses."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._connection: Connection | None = None
        self._failures = 0

    @property
    def is_over(self) -> bool:
        """Whether the last event has come."""
        return False

    @abstractmethod
    def open(self) -> Script[None]:
        """Make the first connection. Errors: EverturnError."""

    def events(self) -> Script[None]:
        """Emit each event once, resuming after the last one where a connection breaks.

        Errors: APIStatusError where the API refuses, e.g. after signing out.
        """
        while not self.is_over:
            failure: EverturnError
            try:
                if self._connection is None:
                    self._connection = yield from self._exchange.open(self._resuming(), retries=0)
                yield from self._read(self._connection)
                failure = APIConnectionError(self._exchange.url, "the stream ended early")
            except httpx2.RequestError as error:
                failure = error_from_transport(error, self._exchange.url)
            except (APIStatusError, APIConnectionError) as error:
                if not is_transient(error):
                    raise
                failure = error
            yield from self.close()
            if not self.is_over:
                yield from self._pause(failure)

    def close(self) -> Script[None]:
        """Close the open connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(httpx2.HTTPError):
                yield Close(connection)

    @abstractmethod
    def _resuming(self) -> Call[Any]:
        """Return the call that opens the stream behind its last event."""

    @abstractmethod
    def _read(self, connection: Connection) -> Script[None]:
        """Emit the events of a connection."""

    @abstractmethod
    def _pause(self, failure: EverturnError) -> Script[None]:
        """Wait before the next connection."""


class EventStream(Generic[FollowerT, EventT]):
    """An open stream; a context manager that iterates over its events."""

    def __init__(self, runner: Blocking, follower: FollowerT) -> None:
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

    def __iter__(self) -> Iterator[EventT]:
        while (emitted := self._runner.advance(self._events)[0]) is not None:
            yield emitted


class AsyncEventStream(Generic[FollowerT, EventT]):
    """An open stream; an async context manager that iterates over its events."""

    def __init__(self, runner: Awaiting, follower: FollowerT) -> None:
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

    async def __aiter__(self) -> AsyncIterator[EventT]:
        while (emitted := (await self._runner.advance(self._events))[0]) is not None:
            yield emitted


class Following(Generic[P, StreamT, AsyncStreamT]):
    """A method that opens a stream; its function returns what its follower begins with."""

    follower: ClassVar[type[Any]]
    stream: ClassVar[type[Any]]
    async_stream: ClassVar[type[Any]]

    def __init__(self, build: Callable[Concatenate[Any, P], Any]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: Group[Blocking], owner: type) -> Callable[P, StreamT]: ...
    @overload
    def __get__(self, group: Group[Awaiting], owner: type) -> Callable[P, AsyncStreamT]: ...
    def __get__(self, group: Group[Any] | None, owner: type) -> Any:
        """Return the method of `group`."""
        if group is None:
            return self
        kind = type(self)

        @wraps(self.build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 -- see the overloads
            runner = group._runner  # noqa: SLF001 -- the group's own
            follower = kind.follower(runner.exchange, self.build(group, *args, **kwargs))
            if isinstance(runner, Blocking):
                return kind.stream(runner, follower)
            return kind.async_stream(runner, follower)

        return method


def events_call(*segments: str, after: str) -> Call[Any]:
    """Return the call that opens the stream at a path, behind an event if one is named."""
    headers = {"Accept": "text/event-stream"}
    if after:
        headers["Last-Event-ID"] = after
    return Call(method="GET", path=path(*segments), answer=type(None), headers=headers)
