"""Owns turns as administrators see them: whose they are, and everything that happened in them."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from schema.chats import Message
from schema.errors import ErrorCode
from schema.ids import ChatId, TurnId, UserId
from schema.time_ranges import TimeRange
from schema.turns import StepStatus, ToolCallDecision, ToolCallStatus, Turn, TurnStatus
from schema.usage import TokenUsage
from schema.wire import StorableText, Timestamp, Usd, WireModel


class TurnSort(StrEnum):
    """The orders of a list of turns; a minus puts the newest first."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"


class TurnFilter(TimeRange):
    """Which turns are listed."""

    user_id: UserId | None = None
    chat_id: ChatId | None = None
    status: TurnStatus | None = None
    model: Annotated[StorableText | None, Field(max_length=100)] = None
    error_code: ErrorCode | None = None


class OwnedTurn(Turn):
    """A turn, and whose it is."""

    user_id: UserId


class InspectedStep(WireModel):
    """One model call of a turn: its newest attempt."""

    step: int
    attempt: int
    model: str
    status: StepStatus
    text: str
    stop_reason: str | None
    created_at: Timestamp
    updated_at: Timestamp


class InspectedToolCall(WireModel):
    """One tool call of a turn."""

    step: int
    tool_call_id: str
    name: str
    input: dict[str, Any]
    edited_input: dict[str, Any] | None = Field(description="What a person made of the input.")
    status: ToolCallStatus
    output: str | None
    attempts: int
    decision: ToolCallDecision | None = Field(description="Where it had to be approved.")
    decision_reason: str | None
    cost_usd: Usd
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class InspectedCharge(WireModel):
    """One attempt that was paid for; `estimated` where the provider did not count its tokens."""

    step: int
    attempt: int
    kind: str
    tool_call_id: str | None
    model: str
    status: str
    estimated: bool
    usage: TokenUsage
    cost_usd: Usd
    created_at: Timestamp
    settled_at: Timestamp | None


class InspectedContext(WireModel):
    """What the prompt was made of: the text of each layer, and where it came from."""

    layers: dict[str, Any]
    sources: list[dict[str, Any]]


class InspectedTurn(WireModel):
    """Everything that is known of a turn. `prompt` holds its version, and tokens by layer."""

    turn: OwnedTurn
    workflow_id: str
    prompt: dict[str, Any] | None
    context: InspectedContext | None
    messages: list[Message]
    steps: list[InspectedStep]
    tool_calls: list[InspectedToolCall]
    charges: list[InspectedCharge]
    superseded_by: TurnId | None
