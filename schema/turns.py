"""Turns: their states, the payloads of their workflow and activities, and what clients see.

Workflow payloads carry references only. Content stays in Postgres, under its policies.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, JsonValue, model_validator

from schema.errors import ErrorCode
from schema.ids import ChatId, MessageId, TurnId, UserId
from schema.turn_options import TurnOptions
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
    """The status of a turn; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the turn has ended."""
        return self in {TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED}


class StepStatus(StrEnum):
    """The status of a model call."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ToolCallStatus(StrEnum):
    """The status of a tool call; the last three are final."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    DENIED = "denied"

    @property
    def is_final(self) -> bool:
        """Whether the tool call has ended."""
        return self in {ToolCallStatus.COMPLETED, ToolCallStatus.FAILED, ToolCallStatus.DENIED}


class ApprovalDecision(StrEnum):
    """A decision about a tool call."""

    APPROVE = "approve"
    DENY = "deny"


class ToolCallDecision(StrEnum):
    """The outcome of an approval."""

    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"


class IfBusy(StrEnum):
    """What happens to a message while a turn is in progress in its chat."""

    REJECT = "reject"
    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"
    STEER = "steer"


class TurnError(WireModel):
    """Why a turn failed, for its user."""

    code: ErrorCode
    message: str
    retryable: bool


class Turn(WireModel):
    """A turn as its owner sees it.

    `steers` is the turn that its message was to join. With `joinedStep` it did, before that step:
    that turn answers the message, and this one has no answer.
    """

    id: TurnId
    chat_id: ChatId
    status: TurnStatus
    model: str
    user_message_id: MessageId
    assistant_message_id: MessageId | None = None
    regenerates: TurnId | None = None
    options: dict[str, JsonValue] | None = Field(
        default=None, description="What the turn was asked for beside its question."
    )
    steers: TurnId | None = None
    joined_step: int | None = None
    error: TurnError | None = None
    usage: TokenUsage
    cost_usd: Usd
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None

    @property
    def answered_by(self) -> TurnId:
        """The turn that answers the message: this one, or that which it joined."""
        return self.id if self.joined_step is None or self.steers is None else self.steers


class RegenerateTurnRequest(TurnOptions):
    """How to regenerate the answer: by default with the model and the options of the turn."""

    stream: bool = False
    model: Annotated[StorableText, Field(min_length=1, max_length=100)] | None = None


class DecideToolCallRequest(RequestModel):
    """A decision about a tool call; `input` and `rememberForChat` need an approval."""

    decision: Annotated[ApprovalDecision, Field(strict=False, examples=["approve"])]
    reason: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=2000, description="The reason for a denial, for the model."),
    ] = None
    input: Annotated[
        StorableObject | None,
        Field(
            description="The input to run the tool with, instead of the model's.",
            examples=[{"expression": "2 + 2"}],
        ),
    ] = None
    remember_for_chat: Annotated[
        bool, Field(description="Whether to approve all calls of this tool in this chat.")
    ] = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.decision is ApprovalDecision.DENY:
            if self.input is not None or self.remember_for_chat:
                raise ValueError("must not have `input` or `rememberForChat` with a denial")
        elif self.reason is not None:
            raise ValueError("must not have `reason` with an approval")
        return self


class ToolCall(WireModel):
    """A tool call of a turn, with its whole input."""

    turn_id: TurnId
    step: int
    tool_call_id: str
    name: str
    status: ToolCallStatus
    input: dict[str, JsonValue] = Field(description="As changed by the decision, if it was.")
    output: str | None = Field(description="Once the call has ended.")
    expires_at: Timestamp | None = Field(description="Until when it awaits approval.")
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class DecidedToolCall(WireModel):
    """A tool call that was approved or denied."""

    turn_id: TurnId
    step: int
    tool_call_id: str
    name: str
    status: ToolCallStatus
    decision: ToolCallDecision
    reason: str | None = None
    input: dict[str, JsonValue]


class TurnReference(Payload):
    """Input of the workflow `ChatTurn` and of the activities that need no more.

    `begins_with_call` is false of turns that the release before started: an activity of its own
    prepares them.
    """

    turn_id: TurnId
    chat_id: ChatId
    user_id: UserId
    model: str
    begins_with_call: bool = False


class PrepareTurnOutput(Payload):
    """What the workflow needs to know to run the turn; `ending` is set if it must not run."""

    ending: TurnStatus | None = None
    error_code: ErrorCode | None = None
    fallback_model: str | None = None
    max_steps: int


class CallModelInput(Payload):
    """The step to run, and the model to call."""

    turn: TurnReference
    step: int
    model: str
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


REFUSAL: Final = "refusal"
"""The stop reason of an answer that a provider's safeguards ended."""

PAUSED: Final = "pause_turn"
"""The stop reason of an answer that its model continues when it gets what it has said so far."""


class RunToolInput(Payload):
    """The stored tool call to run; with `gave_up`, to record that it can't be run."""

    turn: TurnReference
    step: int
    tool_call_id: str
    name: str
    gave_up: bool = False


class RunToolOutput(Payload):
    """How the tool call ended; its output is in the database.

    With `answers_within_s` it has not: its answer comes by a callback, within that many seconds.
    """

    status: ToolCallStatus
    answers_within_s: float | None = None


class AskApprovalOutput(Payload):
    """The seconds left for a decision; None if the call isn't awaiting approval."""

    within_s: float | None = None


class ToolCallKey(Payload):
    """The tool call that a signal is about."""

    step: int
    tool_call_id: str


class DecidedToolCallReference(Payload):
    """A tool call of a turn that was approved or denied."""

    turn_id: TurnId
    call: ToolCallKey


def callback_activity_id(step: int, tool_call_id: str) -> str:
    """Return the id of the activity that waits for the later answer of a tool call."""
    return f"callback-{step}-{tool_call_id}"


class FinishTurnInput(Payload):
    """How to end a turn. `failure` is the message for the user.

    With `only_if_queued` a turn that has begun is left to its workflow; with `bare` it ends as
    failed, without its content.
    """

    turn: TurnReference
    status: TurnStatus
    error_code: ErrorCode | None = None
    failure: str | None = None
    only_if_queued: bool = False
    bare: bool = False


class TurnOutcome(Payload):
    """How the turn ended: the workflow's result, for operators."""

    status: TurnStatus
    error_code: ErrorCode | None = None
    steps: int
    usage: TokenUsage
    cost_usd: Decimal


class FinishTurnOutput(Payload):
    """How the turn ended, and the turn that holds the chat from now on.

    `plan` is the name of its user's plan, if the turn has begun.
    """

    outcome: TurnOutcome
    plan: str | None = None
    following: TurnReference | None = None


class CallModelOutput(Payload):
    """How the model ended the step, without any of its text.

    `finished` is set if this answer was the turn's last and the turn has been ended with it.
    `to_correct` says that the answer does not fit the turn's schema, and that the model is asked
    for it once more. `max_steps` is how many steps the turn may have; answers of the release before
    don't say.
    """

    stop_reason: str
    tool_calls: tuple[ToolCallReference, ...] = ()
    attempt: int
    usage: TokenUsage
    cost_usd: Decimal
    finished: FinishTurnOutput | None = None
    to_correct: bool = False
    max_steps: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether the turn ends with this answer."""
        return not (self.tool_calls or self.stop_reason == PAUSED or self.to_correct)


class StrandedTurns(Payload):
    """Turns to start, and turns to close because their workflow is gone."""

    to_start: tuple[TurnReference, ...] = ()
    to_close: tuple[TurnReference, ...] = ()


class SweepOutcome(Payload):
    """How many turns a sweep started and closed."""

    started: int
    closed: int
