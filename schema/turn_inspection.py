"""Turns in their owners' lists, and as administrators see them, with all details."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, JsonValue

from schema.chats import Message
from schema.errors import ErrorCode
from schema.ids import ChatId, TurnId, UserId
from schema.time_ranges import TimeRange
from schema.turns import StepStatus, ToolCallDecision, ToolCallStatus, Turn, TurnStatus
from schema.usage import TokenUsage
from schema.wire import FilterModel, StorableText, Timestamp, Usd, WireModel


class TurnSort(StrEnum):
    """The sort orders of a list of turns; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"


class OwnTurnFilter(FilterModel):
    """Filters for a list of one's own turns."""

    status: Annotated[
        list[TurnStatus],
        Field(
            default_factory=list,
            max_length=len(TurnStatus),
            description="Repeat to match any of several, e.g. `running` and `awaiting_approval`.",
        ),
    ]


class PendingToolCall(WireModel):
    """A tool call that awaits approval; of a very long `input` only the size is given."""

    tool_call_id: str
    step: int
    name: str
    input: dict[str, JsonValue] | None
    input_bytes: int | None = None
    created_at: Timestamp
    expires_at: Timestamp = Field(description="Without a decision by then, it is denied.")


class ListedTurn(Turn):
    """A turn in its owner's list."""

    pending_tool_calls: list[PendingToolCall] = Field(
        description="The tool calls that await approval; decide about each at "
        "`/turns/{id}/approvals/{toolCallId}`."
    )


class TurnFilter(TimeRange):
    """Filters for a list of turns."""

    user_id: UserId | None = None
    chat_id: ChatId | None = None
    status: TurnStatus | None = None
    model: Annotated[StorableText | None, Field(max_length=100)] = None
    error_code: ErrorCode | None = None


class OwnedTurn(Turn):
    """A turn with its owner."""

    user_id: UserId


class InspectedStep(WireModel):
    """One model call of a turn: its latest attempt."""

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
    edited_input: dict[str, Any] | None = Field(
        description="The input as changed by the person who approved the call."
    )
    status: ToolCallStatus
    output: str | None
    attempts: int
    decision: ToolCallDecision | None = Field(
        description="The decision, if the call needed approval."
    )
    decision_reason: str | None
    expires_at: Timestamp | None = Field(
        description="Until when the call could be approved, if it asked for approval."
    )
    cost_usd: Usd
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class InspectedCharge(WireModel):
    """The cost of one attempt; `estimated` if the provider didn't report its tokens."""

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
    """The prompt's layers with their text, and their sources."""

    layers: dict[str, Any]
    sources: list[dict[str, Any]]


class InspectedTurn(WireModel):
    """All details of a turn. `prompt` holds its version, and tokens by layer."""

    turn: OwnedTurn
    workflow_id: str
    request_id: str | None = Field(description="The request that created the turn.")
    prompt: dict[str, Any] | None
    context: InspectedContext | None
    messages: list[Message]
    steps: list[InspectedStep]
    tool_calls: list[InspectedToolCall]
    charges: list[InspectedCharge]
    superseded_by: TurnId | None
