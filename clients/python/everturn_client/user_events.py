"""The stream of what happens in all chats of a user, followed over any number of connections."""

import json
from typing import Any, Final, Literal, ParamSpec, TypeAlias

from pydantic import TypeAdapter, ValidationError

from everturn_client.calls import Call
from everturn_client.errors import APIStatusError, EverturnError, UnexpectedResponseError
from everturn_client.events import EventParser, ServerSentEvent, UnknownEvent
from everturn_client.exchange import (
    Connection,
    Emit,
    Exchange,
    Read,
    Script,
    Sleep,
    backoff_s,
)
from everturn_client.following import (
    AsyncEventStream,
    EventStream,
    Follower,
    Following,
    events_call,
)
from everturn_client.models import Resource

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


class UserFollower(Follower):
    """The logic of a user's stream, which never ends. No I/O."""

    def __init__(self, exchange: Exchange, opening: Call[Any]) -> None:
        super().__init__(exchange)
        self._after = opening.headers.get("Last-Event-ID", "")

    def open(self) -> Script[None]:
        """Make the first connection. Errors: EverturnError."""
        self._connection = yield from self._exchange.open(self._resuming())

    def _resuming(self) -> Call[Any]:
        return user_events_call(self._after)

    def _read(self, connection: Connection) -> Script[None]:
        parser = EventParser(last_event_id=self._after)
        while (chunk := (yield Read(connection))) is not None:
            for sent in parser.feed(chunk):
                event = parse_user_event(sent)
                self._after = sent.last_event_id
                self._failures = 0
                yield Emit(event)

    def _pause(self, failure: EverturnError) -> Script[None]:
        pause = backoff_s(self._failures - 1) if self._failures else 0.0
        if isinstance(failure, APIStatusError) and failure.retry_after_s is not None:
            pause = failure.retry_after_s
        self._failures += 1
        yield Sleep(min(pause, _LONGEST_PAUSE_S))


class UserEvents(EventStream[UserFollower, UserEvent]):
    """The open stream of a user; a context manager that iterates over its events."""


class AsyncUserEvents(AsyncEventStream[UserFollower, UserEvent]):
    """The open stream of a user; an async context manager that iterates over its events."""


class FollowingUser(Following[P, UserEvents, AsyncUserEvents]):
    """A method that opens the stream of a user."""

    follower = UserFollower
    stream = UserEvents
    async_stream = AsyncUserEvents


def user_events_call(after: str) -> Call[Any]:
    """Return the call that opens the stream behind an event, if one is named."""
    return events_call("users", "me", "events", after=after)
