"""Owns the shapes of a turn's events, as far as this client shows them.

Fields and events that a newer server adds are ignored.
"""

from decimal import Decimal
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic.alias_generators import to_camel

from workers.terminal_chat.errors import UnreadableAnswerError


class _Payload(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="ignore", frozen=True, populate_by_name=True
    )


class TurnOpened(_Payload):
    """The turn exists."""

    turn_id: str


class StepStarted(_Payload):
    """An attempt of a step begins: what was shown of the step is void."""

    step: int
    attempt: int
    model: str | None = None


class Delta(_Payload):
    """More text of an attempt of a step."""

    step: int
    attempt: int
    text: str


class ToolCall(_Payload):
    """Where a tool call stands; later events of the same call replace earlier ones."""

    step: int = 0
    tool_call_id: str
    name: str
    status: str
    input: JsonValue = None
    output: JsonValue = None


class TokenCounts(_Payload):
    """How many tokens were read and written."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class Usage(TokenCounts):
    """What one attempt used, of a step or of the tool call that is named."""

    step: int
    attempt: int
    tool_call_id: str | None = None
    model: str | None = None


class Notice(_Payload):
    """Something that the person should know while the turn goes on."""

    code: str
    message: str


class TurnError(_Payload):
    """Why the turn failed."""

    code: str
    message: str


class StoredMessage(_Payload):
    """The assistant's message as the server keeps it."""

    content: str


class Done(_Payload):
    """The end of the turn. Units: `cost_usd` is in USD."""

    status: str
    assistant_message: StoredMessage | None = None
    usage: TokenCounts | None = None
    cost_usd: Decimal | None = None


Event: TypeAlias = TurnOpened | StepStarted | Delta | ToolCall | Usage | Notice | TurnError | Done

_TYPES: dict[str, type[Event]] = {
    "turn": TurnOpened,
    "step": StepStarted,
    "delta": Delta,
    "tool_call": ToolCall,
    "usage": Usage,
    "notice": Notice,
    "error": TurnError,
    "done": Done,
}


def read_event(name: str, data: str) -> Event | None:
    """Return the event that `data` holds, or None for a name that this client does not know.

    Errors: UnreadableAnswerError for data that does not fit the event's name.
    """
    if (event_type := _TYPES.get(name)) is None:
        return None
    try:
        return event_type.model_validate_json(data)
    except ValidationError as error:
        raise UnreadableAnswerError(f"an event `{name}`") from error
