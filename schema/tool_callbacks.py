"""Callbacks: the later answers of workflow tools, and their payloads."""

from typing import Annotated

from pydantic import Field, JsonValue

from schema.ids import ChatId, TurnId, UserId
from schema.turns import ToolCallStatus
from schema.wire import Payload, RequestModel, WireModel


class ToolCallbackRequest(RequestModel):
    """The answer to a call that a workflow tool accepted."""

    output: Annotated[
        JsonValue,
        Field(
            description="The output for the model: text as it is, anything else as JSON.",
            examples=["Ticket 4711 was opened.", {"ticket": 4711}],
        ),
    ]
    is_error: bool = Field(
        default=False, description="Whether the call failed; `output` then says why."
    )


class ToolCallbackReceipt(WireModel):
    """The call's status after its answer: `completed` or `failed`."""

    status: ToolCallStatus


class AnsweredCall(Payload):
    """A call whose answer is stored, and its turn."""

    turn_id: TurnId
    chat_id: ChatId
    user_id: UserId
    step: int
    tool_call_id: str
    status: ToolCallStatus


class DeliveryOutcome(Payload):
    """How many missed answers one sweep delivered."""

    delivered: int
