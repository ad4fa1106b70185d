"""Events of a turn: how they are read, and the rule that makes them the assistant's message.

The rule: `step` clears the text of its step, `delta` appends to it, and the message is the text
of all steps in order. Thoughts grow by `thinking` in the same way, beside the message. Events and
fields that a newer server adds are passed through.
"""

import codecs
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

from pydantic import Discriminator, JsonValue, Tag, TypeAdapter, ValidationError

from everturn_client.chat_models import Message
from everturn_client.errors import UnexpectedResponseError
from everturn_client.models import Resource, TokenUsage

_LINE_END = re.compile(r"\r\n|\n|\r")


class ServerSentEvent(NamedTuple):
    """One event of a stream, and the id to resume after it."""

    name: str
    data: str
    last_event_id: str


class EventParser:
    """Turns the bytes of one connection into events, wherever the chunks were cut.

    An event that the end of the connection cut short is dropped, and so is its id.
    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
    """

    def __init__(self, *, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line = ""
        self._after_carriage_return = False
        self._name = ""
        self._data: list[str] = []
        self._id = last_event_id

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that `chunk` completes, in order."""
        events = (self._take(line) for line in self._lines(self._decoder.decode(chunk)))
        return [event for event in events if event is not None]

    def _lines(self, text: str) -> list[str]:
        if not text:
            return []
        # A line ends at its CR already; a LF that comes with the next chunk belongs to it.
        start = 1 if self._after_carriage_return and text[0] == "\n" else 0
        self._after_carriage_return = text[-1] == "\r"
        *lines, self._line = _LINE_END.split(self._line + text[start:])
        return lines

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self.last_event_id = "", [], self._id
        if not data:
            return None
        return ServerSentEvent(name, "\n".join(data), self.last_event_id)


class EventModel(Resource):
    """An event; `id` is its place in the stream, which `turns.events(after=…)` resumes after."""

    id: str = ""
    type: str


class TurnEvent(EventModel):
    """The turn and its status: the first event, and again where the turn starts running."""

    type: Literal["turn"] = "turn"
    turn_id: str
    chat_id: str | None = None
    status: str | None = None
    user_message_id: str | None = None
    steers: str | None = None


class MessageJoinedEvent(EventModel):
    """A message joined the turn before the step; `turn_id` is the turn that it was sent with."""

    type: Literal["message_joined"] = "message_joined"
    step: int
    message_id: str
    turn_id: str | None = None


class StepEvent(EventModel):
    """An attempt at a step starts: the text that was shown of this step is void."""

    type: Literal["step"] = "step"
    step: int
    attempt: int
    model: str | None = None


class DeltaEvent(EventModel):
    """More text of a step."""

    type: Literal["delta"] = "delta"
    step: int
    attempt: int
    text: str


class ThinkingEvent(EventModel):
    """More of the model's thoughts in a step; no part of the answer."""

    type: Literal["thinking"] = "thinking"
    step: int
    attempt: int
    text: str


class ToolCallProgress(Resource):
    """The progress of a running tool, in its own units."""

    progress: float
    total: float | None = None
    message: str | None = None


class ToolCallEvent(EventModel):
    """A tool call and its status; it replaces an earlier event with the same `tool_call_id`.

    `status` is `requested`, `awaiting_approval`, `running`, `completed`, `failed` or `denied`.
    A long `input` is not repeated, and a very long one is in no event: then `input_bytes` is its
    size, and `turns.tool_call` returns it.
    """

    type: Literal["tool_call"] = "tool_call"
    step: int = 0
    tool_call_id: str
    name: str
    status: str
    input: JsonValue = None
    input_bytes: int | None = None
    output: JsonValue = None
    expires_at: str | None = None
    progress: ToolCallProgress | None = None


class UsageEvent(EventModel, TokenUsage):
    """The tokens and the cost of one attempt, or of the tool call that is named."""

    type: Literal["usage"] = "usage"
    step: int
    attempt: int
    tool_call_id: str | None = None
    model: str | None = None
    cost_usd: Decimal | None = None


class NoticeEvent(EventModel):
    """Information for the user; the turn continues."""

    type: Literal["notice"] = "notice"
    code: str
    message: str


class ErrorEvent(EventModel):
    """Why the turn failed; `done` follows."""

    type: Literal["error"] = "error"
    code: str
    message: str
    retryable: bool = False


class DoneEvent(EventModel):
    """The end of the turn: `completed`, `failed` or `cancelled`. Always last, exactly once.

    With `joined_turn_id` the message joined that turn, which answers it.
    """

    type: Literal["done"] = "done"
    status: str
    assistant_message: Message | None = None
    usage: TokenUsage | None = None
    cost_usd: Decimal | None = None
    joined_turn_id: str | None = None


class UnknownEvent(EventModel):
    """An event that this version of the client does not know; its fields are in `data`."""

    type: str
    data: JsonValue = None


_KNOWN: Final = frozenset(
    {
        *("turn", "message_joined", "step", "delta", "thinking", "tool_call", "usage", "notice"),
        *("error", "done"),
    }
)


def _kind(value: Any) -> str:  # noqa: ANN401 -- pydantic hands over anything
    name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return name if name in _KNOWN else "unknown"


Event: TypeAlias = Annotated[
    Annotated[TurnEvent, Tag("turn")]
    | Annotated[MessageJoinedEvent, Tag("message_joined")]
    | Annotated[StepEvent, Tag("step")]
    | Annotated[DeltaEvent, Tag("delta")]
    | Annotated[ThinkingEvent, Tag("thinking")]
    | Annotated[ToolCallEvent, Tag("tool_call")]
    | Annotated[UsageEvent, Tag("usage")]
    | Annotated[NoticeEvent, Tag("notice")]
    | Annotated[ErrorEvent, Tag("error")]
    | Annotated[DoneEvent, Tag("done")]
    | Annotated[UnknownEvent, Tag("unknown")],
    Discriminator(_kind),
]
"""Any event, distinguished by `type`."""

_ADAPTER: Final[TypeAdapter[Event]] = TypeAdapter(Event)


def parse_event(sent: ServerSentEvent) -> Event:
    """Return the event that a server-sent event carries. Errors: UnexpectedResponseError."""
    named = {"id": sent.last_event_id, "type": sent.name}
    try:
        data = json.loads(sent.data)
        if sent.name not in _KNOWN:
            return UnknownEvent(**named, data=data)
        return _ADAPTER.validate_python({**data, **named})
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        if sent.name not in _KNOWN:
            return UnknownEvent(**named, data=sent.data)
        raise UnexpectedResponseError(f"an event `{sent.name}`") from error


@dataclass
class StepText:
    """The text of a step's current attempt, and the model's thoughts before it."""

    attempt: int
    text: str = ""
    thinking: str = ""


@dataclass
class TurnState:
    """One turn, reduced from the events so far; `joined` has the messages that joined it, by id."""

    steps: dict[int, StepText] = field(default_factory=dict)
    tool_calls: dict[str, ToolCallEvent] = field(default_factory=dict)
    joined: dict[str, MessageJoinedEvent] = field(default_factory=dict)
    notices: list[NoticeEvent] = field(default_factory=list)
    turn_id: str = ""
    status: str | None = None
    model: str | None = None
    error: ErrorEvent | None = None
    done: DoneEvent | None = None

    @property
    def streamed_text(self) -> str:
        """The message as the events add up to it."""
        return "".join(text for _, text in self.texts())

    @property
    def text(self) -> str:
        """The message; once the turn is done, the stored one."""
        if self.done is not None and self.done.assistant_message is not None:
            return self.done.assistant_message.content
        return self.streamed_text

    def thoughts(self) -> list[tuple[int, str]]:
        """Return each step with what its model thought, in order."""
        return [(step, self.steps[step].thinking) for step in sorted(self.steps)]

    def texts(self) -> list[tuple[int, str]]:
        """Return each step with its text, in order."""
        return [(step, self.steps[step].text) for step in sorted(self.steps)]

    def apply(self, event: Event) -> None:
        """Take in the next event of the stream."""
        match event:
            case StepEvent():
                self._start(event)
            case MessageJoinedEvent():
                self.joined[event.message_id] = event
            case DeltaEvent() | ThinkingEvent():
                self._append(event)
            case ToolCallEvent():
                self._record_tool_call(event)
            case NoticeEvent():
                self._record_notice(event)
            case UsageEvent() if event.tool_call_id is None:
                self.model = event.model or self.model
            case TurnEvent():
                self.turn_id, self.status = event.turn_id, event.status
            case ErrorEvent():
                self.error = event
            case DoneEvent():
                self.done, self.status = event, event.status
            case _:
                pass

    def _start(self, event: StepEvent) -> None:
        current = self.steps.get(event.step)
        if current is not None and event.attempt < current.attempt:
            return
        if current is not None and event.attempt > current.attempt:
            self._drop_tool_calls(event.step)
        self.steps[event.step] = StepText(event.attempt)
        self.model = event.model or self.model

    def _append(self, event: DeltaEvent | ThinkingEvent) -> None:
        current = self.steps.get(event.step)
        if current is None or event.attempt > current.attempt:
            self._start(StepEvent(step=event.step, attempt=event.attempt))
        step = self.steps[event.step]
        if event.attempt != step.attempt:
            return
        if event.type == "thinking":
            step.thinking += event.text
        else:
            step.text += event.text

    def _record_tool_call(self, event: ToolCallEvent) -> None:
        earlier = self.tool_calls.get(event.tool_call_id)
        if earlier is not None and event.input is None:
            event = event.model_copy(update={"input": earlier.input})
        self.tool_calls[event.tool_call_id] = event

    def _record_notice(self, event: NoticeEvent) -> None:
        # A resumed stream may repeat a notice under another id.
        if (event.code, event.message) not in {(n.code, n.message) for n in self.notices}:
            self.notices.append(event)

    def _drop_tool_calls(self, step: int) -> None:
        """Drop the tool calls of a void attempt."""
        kept = {key: call for key, call in self.tool_calls.items() if call.step != step}
        self.tool_calls = kept


class TextPieces:
    """Cuts the text of a turn into pieces that append to each other.

    Text that a new attempt repeats is not returned twice. Where it comes back different, the
    whole new text follows after a line break: what was returned can't be taken back.
    """

    def __init__(self) -> None:
        self._given = ""

    def next(self, state: TurnState) -> str:
        """Return what is new in `state`, or ''."""
        text = state.text
        if text.startswith(self._given):
            piece = text[len(self._given) :]
        elif state.done is not None or not self._given.startswith(text):
            piece = f"\n{text}"
        else:
            return ""  # cleared, and so far coming back the same
        self._given = text
        return piece
