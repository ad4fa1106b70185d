"""Owns the later answers of workflow tools: what a callback says, and what Temporal is told."""

from typing import Annotated

from pydantic import Field, JsonValue

from schema.ids import ChatId, TurnId, UserId
from schema.turns import ToolCallStatus
from schema.wire import Payload, RequestModel, WireModel


class ToolCallbackRequest(RequestModel):
    """The answer of a call that a workflow tool had taken."""

    output: Annotated[
        JsonValue,
        Field(
            description="What the model reads: text as it is, anything else as JSON.",
            examples=["Ticket 4711 was opened.", {"ticket": 4711}],
        ),
    ]
    is_error: bool = Field(
        default=False, description="Whether the call failed; `output` then says why."
    )


class ToolCallbackReceipt(WireModel):
    """Where the call stands with its answer: `completed` or `failed`."""

    status: ToolCallStatus


class AnsweredCall(Payload):
    """A call whose answer is stored, and who waits for it."""

    turn_id: TurnId
    chat_id: ChatId
    user_id: UserId
    step: int
    tool_call_id: str
    status: ToolCallStatus


class DeliveryOutcome(Payload):
    """How many turns one sweep told of answers that they had not heard of."""

    delivered: int
