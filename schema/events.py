"""Events of the streams of turns and of users: their names, data and ids.

A client rebuilds the answer by one rule: `step` clears what it has of that step, `delta` appends
to it, and the answer is the texts of all steps in order. Thoughts grow by `thinking` in the same
way, and are no part of the answer.
"""

from decimal import Decimal
from enum import StrEnum
from typing import ClassVar, NamedTuple

from pydantic import JsonValue

from schema.chats import MessageOutline
from schema.errors import ErrorCode
from schema.ids import ChatId, MessageId, TurnId
from schema.turns import ToolCallStatus, TurnStatus
from schema.usage import TokenUsage
from schema.wire import Timestamp, Usd, WireModel

SERVER_CHARS = 8

DONE_SEQUENCE = 999_999
"""The sequence number in the id of every `done`, so that the id alone marks the end."""


class EventName(StrEnum):
    """The names of events, as in the SSE field `event`."""

    TURN = "turn"
    STEP = "step"
    DELTA = "delta"
    MESSAGE_JOINED = "message_joined"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    USAGE = "usage"
    NOTICE = "notice"
    ERROR = "error"
    DONE = "done"
    CHAT = "chat"
    MEMORY = "memory"
    RESYNC = "resync"


class EventData(WireModel):
    """The data of one event; each subclass has its event's name."""

    event_name: ClassVar[EventName]

    def to_json(self) -> str:
        """Return the data for the SSE field `data`: one line, without null fields."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


class TurnEvent(EventData):
    """The turn and its state; the first event of a stream.

    `steers` is the turn that its message waits to join.
    """

    event_name = EventName.TURN
    turn_id: TurnId
    chat_id: ChatId
    status: TurnStatus
    user_message_id: MessageId
    steers: TurnId | None = None


class MessageJoinedEvent(EventData):
    """A message joined this turn before the step; a repetition changes nothing.

    `turnId` is the turn that it was sent with.
    """

    event_name = EventName.MESSAGE_JOINED
    step: int
    message_id: MessageId
    turn_id: TurnId


class StepEvent(EventData):
    """An attempt at a step starts; it clears the text and the thoughts received for that step."""

    event_name = EventName.STEP
    step: int
    attempt: int
    model: str


class DeltaEvent(EventData):
    """More text of a step, to append."""

    event_name = EventName.DELTA
    step: int
    attempt: int
    text: str


class ThinkingEvent(EventData):
    """More of the model's thoughts in a step, to append; no part of the answer."""

    event_name = EventName.THINKING
    step: int
    attempt: int
    text: str


_DELTA_CHARS = 16 * 1024


def delta_events(text: str, *, step: int, attempt: int) -> list["DeltaEvent"]:
    """Return a text as events of a bounded size."""
    return [DeltaEvent(step=step, attempt=attempt, text=piece) for piece in _pieces(text)]


def thinking_events(text: str, *, step: int, attempt: int) -> list["ThinkingEvent"]:
    """Return thoughts as events of a bounded size."""
    return [ThinkingEvent(step=step, attempt=attempt, text=piece) for piece in _pieces(text)]


def step_events(
    step: int, *, attempt: int, model: str, thinking: str, text: str
) -> list[EventData]:
    """Return an attempt at a step as it begins, with all that it has written."""
    return [
        StepEvent(step=step, attempt=attempt, model=model),
        *thinking_events(thinking, step=step, attempt=attempt),
        *delta_events(text, step=step, attempt=attempt),
    ]


def _pieces(text: str) -> list[str]:
    return [text[start : start + _DELTA_CHARS] for start in range(0, len(text), _DELTA_CHARS)]


class ToolCallProgress(WireModel):
    """The progress of a call, in the tool's own units."""

    progress: float
    total: float | None = None
    message: str | None = None


class ToolCallEvent(EventData):
    """A tool call and its state; `output` is set once it has ended.

    A long `input` is left out of all events but the first, and a very long one of all: then
    `inputBytes` is its size, and `GET /turns/{id}/tool-calls/{toolCallId}` returns it. `expiresAt`
    is the deadline of a call that awaits approval; `progress` of a running call isn't stored.
    """

    event_name = EventName.TOOL_CALL
    step: int
    tool_call_id: str
    name: str
    status: ToolCallStatus
    input: JsonValue = None
    input_bytes: int | None = None
    output: str | None = None
    expires_at: Timestamp | None = None
    progress: ToolCallProgress | None = None


class UsageEvent(EventData):
    """The usage and cost of one attempt of the step's model, or of the tool call `toolCallId`.

    For a tool that calls no model, `model` is the tool's name.
    """

    event_name = EventName.USAGE
    step: int
    attempt: int
    tool_call_id: str | None = None
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: Usd


class NoticeEvent(EventData):
    """Information for the user; the turn continues."""

    event_name = EventName.NOTICE
    code: str
    message: str


class ErrorEvent(EventData):
    """Why the turn failed; `done` follows."""

    event_name = EventName.ERROR
    code: ErrorCode
    message: str
    retryable: bool


class DoneEvent(EventData):
    """The end of the turn: exactly one, always last.

    `assistantMessage` is left out if the turn has none, or if it has more than a million
    characters. It has no parts: these are what the events have shown. `joinedTurnId` is the turn
    that answers the message instead: it joined that one.
    """

    event_name = EventName.DONE
    status: TurnStatus
    assistant_message: MessageOutline | None = None
    usage: TokenUsage
    cost_usd: Usd
    joined_turn_id: TurnId | None = None


def end_of_joined(turn_id: TurnId) -> DoneEvent:
    """Return the end of a turn whose message joined `turn_id`, which answers it."""
    return DoneEvent(
        status=TurnStatus.COMPLETED,
        usage=TokenUsage(),
        cost_usd=Decimal(0),
        joined_turn_id=turn_id,
    )


class TurnChangedEvent(EventData):
    """In a user's stream: a turn runs, awaits an approval, or has ended."""

    event_name = EventName.TURN
    turn_id: TurnId
    chat_id: ChatId
    status: TurnStatus


class ChatChange(StrEnum):
    """What happened to a chat."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class ChatChangedEvent(EventData):
    """In a user's stream: a chat was created, changed, e.g. got a title, or was deleted."""

    event_name = EventName.CHAT
    chat_id: ChatId
    change: ChatChange
    title: str | None = None


class MemoriesSuggestedEvent(EventData):
    """In a user's stream: memories were suggested from a turn."""

    event_name = EventName.MEMORY
    turn_id: TurnId
    suggested: int


class ResyncEvent(EventData):
    """In a user's stream: its first event, and where others may be missing: read the lists."""

    event_name = EventName.RESYNC


GONE: tuple[EventData, ...] = (
    ErrorEvent(code=ErrorCode.NOT_FOUND, message="The turn was deleted.", retryable=False),
    DoneEvent(status=TurnStatus.CANCELLED, usage=TokenUsage(), cost_usd=Decimal(0)),
)
"""The end of a stream whose turn was deleted in the meantime."""


class EventId(NamedTuple):
    """A place in a stream: `<milliseconds>-<sequence>`, as Redis orders its entries.

    Milliseconds 0 marks events of a snapshot made from the database.
    """

    milliseconds: int
    sequence: int

    def __str__(self) -> str:
        """Return the id as it stands in the SSE field `id`."""
        return f"{self.milliseconds}-{self.sequence}"

    @property
    def is_done(self) -> bool:
        """Whether this is the id of a `done`, the last event."""
        return self.sequence == DONE_SEQUENCE

    @property
    def is_snapshot(self) -> bool:
        """Whether the event came from the database rather than from Redis."""
        return self.milliseconds == 0


class UserEventId(NamedTuple):
    """A place in a user's stream: `<milliseconds>-<sequence>-<server>`.

    `server` is the start of the run id of the Redis server: another one, or one that was restarted,
    may lack events that it had, and even number others like them.
    """

    place: EventId
    server: str

    def __str__(self) -> str:
        """Return the id as it stands in the SSE field `id`."""
        return f"{self.place}-{self.server}"


class StreamedEvent(NamedTuple):
    """One event as it goes to a client; `data` is JSON on a single line.

    `name` is an `EventName`, or the name of an event that only a newer release knows.
    """

    id: EventId
    name: str
    data: str


class StreamedUserEvent(NamedTuple):
    """One event of a user's stream as it goes to a client; otherwise as `StreamedEvent`."""

    id: UserEventId
    name: str
    data: str


def parse_event_id(text: str) -> EventId | None:
    """Return the id that `text` names, or None if it names none."""
    milliseconds, dash, sequence = text.partition("-")
    parts = (milliseconds, sequence)
    if not dash or not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in parts):
        return None
    return EventId(int(milliseconds), int(sequence))


def parse_user_event_id(text: str) -> UserEventId | None:
    """Return the id of a user's stream that `text` names, or None if it names none."""
    place, _, server = text.rpartition("-")
    found = parse_event_id(place)
    if found is None or not (server.isascii() and server.isalnum() and len(server) <= SERVER_CHARS):
        return None
    return UserEventId(found, server)
