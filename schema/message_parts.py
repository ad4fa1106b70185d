"""The parts of a message in their order, and what an answer cites."""

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import Field, JsonValue

from schema.ids import DocumentId, FileId, MessageId
from schema.turns import ToolCallStatus
from schema.wire import Timestamp, Usd, WireModel


class TextPart(WireModel):
    """Text; the text parts of a message add up to its `content`."""

    type: Literal["text"] = "text"
    text: str


class ThinkingPart(WireModel):
    """What the model thought before it continued."""

    type: Literal["thinking"] = "thinking"
    text: str


class JoinedMessagePart(WireModel):
    """A message that joined the turn here, before the step; it is listed before the answer."""

    type: Literal["joined_message"] = "joined_message"
    message_id: MessageId
    step: int


class AttachmentPart(WireModel):
    """A file of the message, or an image that a tool returned. Units: `size` is in bytes."""

    type: Literal["attachment"] = "attachment"
    file_id: FileId
    name: str
    content_type: str
    size: int
    deleted: bool = False


class ToolCallPart(WireModel):
    """A tool call as its last event shows it, with its cost.

    A very long `input` is left out; `inputBytes` is its size then. A long `output` is cut, which
    `outputTruncated` says. `GET /turns/{turnId}/tool-calls/{toolCallId}` returns both in full.
    """

    type: Literal["tool_call"] = "tool_call"
    tool_call_id: str
    step: int
    name: str
    status: ToolCallStatus
    input: dict[str, JsonValue] | None = Field(description="As changed by the decision, if it was.")
    input_bytes: int | None = None
    output: str | None = Field(description="Once the call has ended.")
    output_truncated: bool = False
    error: str | None = Field(None, description="The output, if the call failed or was denied.")
    cost_usd: Usd
    started_at: Timestamp | None
    ended_at: Timestamp | None
    attachments: list[AttachmentPart] = Field(
        default_factory=list,
        description="The images of its result, if it has any.",
        exclude_if=lambda attachments: not attachments,
    )


MessagePart: TypeAlias = Annotated[
    TextPart | ThinkingPart | ToolCallPart | AttachmentPart | JoinedMessagePart,
    Field(discriminator="type"),
]


class CitationType(StrEnum):
    """What a citation refers to."""

    MEMORY = "memory"
    PASSAGE = "passage"


class Citation(WireModel):
    """A memory or a passage that was quoted to the model for this answer.

    Units: `score` is comparable within one type only.
    """

    type: CitationType
    id: UUID | None = Field(
        description="The memory's or the passage's ID; null for passages quoted by early releases."
    )
    document_id: DocumentId | None = Field(None, description="The passage's document.")
    version: int | None = Field(None, description="The document's version.")
    title: str | None = Field(
        description="The document's title, or how the memory begins; null if it was deleted."
    )
    score: float
