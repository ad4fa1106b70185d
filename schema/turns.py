"""Owns the turn: its states, what its workflow and activities pass, what clients see of it.

Workflow payloads carry references only. Content stays in Postgres, under its policies.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from schema.errors import ErrorCode
from schema.ids import ChatId, MessageId, TurnId, UserId
from schema.usage import TokenUsage
from schema.wire import (
    Payload,
    RequestModel,
    StorableObject,
    StorableText,
    Timestamp,
    Usd,
    WireModel,
)


class TurnStatus(StrEnum):
    """Where a turn stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing can happen to the turn any more."""
        return self in {TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED}


class StepStatus(StrEnum):
    """Where one model call of a turn stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ToolCallStatus(StrEnum):
    """Where one tool call stands; the last three are final."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    DENIED = "denied"

    @property
    def is_final(self) -> bool:
        """Whether nothing can happen to the tool call any more."""
        return self in {ToolCallStatus.COMPLETED, ToolCallStatus.FAILED, ToolCallStatus.DENIED}


class ApprovalDecision(StrEnum):
    """What a person wants of a tool call that waits for them."""

    APPROVE = "approve"
    DENY = "deny"


class ToolCallDecision(StrEnum):
    """What became of a tool call that waited for a person."""

    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"


class IfBusy(StrEnum):
    """What a message does that finds a turn under way in its chat."""

    REJECT = "reject"
    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"


class TurnError(WireModel):
    """Why a turn failed, in words for the person who waits for it."""

    code: ErrorCode
    message: str
    retryable: bool


class Turn(WireModel):
    """A turn as its owner sees it."""

    id: TurnId
    chat_id: ChatId
    status: TurnStatus
    model: str
    user_message_id: MessageId
    assistant_message_id: MessageId | None = None
    regenerates: TurnId | None = None
    error: TurnError | None = None
    usage: TokenUsage
    cost_usd: Usd
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None


class RegenerateTurnRequest(RequestModel):
    """How the answer is to be given anew; by the same model unless another is named."""

    stream: bool = False
    model: Annotated[StorableText, Field(min_length=1, max_length=100)] | None = None


class DecideToolCallRequest(RequestModel):
    """A decision about a tool call. Only what is approved can be edited, or remembered."""

    decision: Annotated[ApprovalDecision, Field(strict=False, examples=["approve"])]
    reason: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=2000, description="What the model is told of a denial."),
    ] = None
    input: Annotated[
        StorableObject | None,
        Field(
            description="Another input than the model's, to run the tool with.",
            examples=[{"expression": "2 + 2"}],
        ),
    ] = None
    remember_for_chat: Annotated[
        bool, Field(description="Whether to run this tool without asking in all of this chat.")
    ] = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.decision is ApprovalDecision.DENY:
            if self.input is not None or self.remember_for_chat:
                raise ValueError("can't have another input or a memory where the call is denied")
        elif self.reason is not None:
            raise ValueError("can't have a reason where the call is approved")
        return self


class DecidedToolCall(WireModel):
    """A tool call that its owner decided about."""

    turn_id: TurnId
    step: int
    tool_call_id: str
    name: str
    status: ToolCallStatus
    decision: ToolCallDecision
    reason: str | None = None
    input: dict[str, JsonValue]


class TurnReference(Payload):
    """Input of the workflow `ChatTurn` and of the activities that need no more."""

    turn_id: TurnId
    chat_id: ChatId
    user_id: UserId
    model: str


class PrepareTurnOutput(Payload):
    """What the workflow needs to know to run the turn; `ending` is set where it must not run."""

    ending: TurnStatus | None = None
    error_code: ErrorCode | None = None
    model: str
    fallback_model: str | None = None
    max_steps: int
    prompt_tokens: int


class CallModelInput(Payload):
    """Which step to ask which model for. `prompt_tokens` is the estimate of its input."""

    turn: TurnReference
    step: int
    model: str
    prompt_tokens: int
    is_fallback: bool = False


class ToolCallReference(Payload):
    """One tool call of a step. `name` is that of a registered tool, or `unknown`.

    Units: `timeout_s` is how long one attempt may take, in seconds.
    """

    id: str
    name: str
    instant: bool
    needs_approval: bool = False
    timeout_s: float | None = None


class CallModelOutput(Payload):
    """How the model ended the step, without a word of what it said."""

    stop_reason: str
    tool_calls: tuple[ToolCallReference, ...] = ()
    attempt: int
    usage: TokenUsage
    cost_usd: Decimal


class RunToolInput(Payload):
    """Which stored tool call to run; with `gave_up`, to note that it can't be run."""

    turn: TurnReference
    step: int
    tool_call_id: str
    name: str
    gave_up: bool = False


class RunToolOutput(Payload):
    """How the tool call ended; its output is in the database.

    With `answers_within_s` it has not: its answer comes by a callback, within as many seconds.
    """

    status: ToolCallStatus
    answers_within_s: float | None = None


class AskApprovalOutput(Payload):
    """Within how many seconds somebody may decide; None where nothing is waited for."""

    within_s: float | None = None


class ToolCallKey(Payload):
    """Which tool call of a turn a signal is about."""

    step: int
    tool_call_id: str


class DecidedToolCallReference(Payload):
    """Which tool call of which turn somebody decided about."""

    turn_id: TurnId
    call: ToolCallKey


def callback_activity_id(step: int, tool_call_id: str) -> str:
    """Return the id of the activity that waits for the later answer of a tool call."""
    return f"callback-{step}-{tool_call_id}"


class FinishTurnInput(Payload):
    """How a turn is to end. `failure` is the sentence for the person who waits.

    With `only_if_queued` a turn that has begun is left to its workflow.
    """

    turn: TurnReference
    status: TurnStatus
    error_code: ErrorCode | None = None
    failure: str | None = None
    only_if_queued: bool = False


class TurnOutcome(Payload):
    """How the turn did end: what an operator reads as the workflow's result."""

    status: TurnStatus
    error_code: ErrorCode | None = None
    steps: int
    usage: TokenUsage
    cost_usd: Decimal


class FinishTurnOutput(Payload):
    """How the turn ended, and the turn that holds the chat from now on."""

    outcome: TurnOutcome
    following: TurnReference | None = None


class StrandedTurns(Payload):
    """Turns to start, and turns to close because their workflow is gone."""

    to_start: tuple[TurnReference, ...] = ()
    to_close: tuple[TurnReference, ...] = ()


class SweepOutcome(Payload):
    """How many turns a sweep started and closed."""

    started: int
    closed: int
