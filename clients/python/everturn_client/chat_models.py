"""Chats, messages and turns, as the API's responses carry them."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Discriminator, Field, JsonValue, SecretStr, Tag

from everturn_client.models import Resource, TokenUsage


class LastMessage(Resource):
    """The message that ends the current branch of a chat; `text` is how it begins."""

    id: str
    role: str
    text: str
    created_at: datetime


class ActiveTurn(Resource):
    """The turn that runs or waits in a chat."""

    id: str
    status: str


class Mark(Resource):
    """A place in an excerpt, from `start` up to `end`."""

    start: int
    end: int


class ChatHit(Resource):
    """Where a search found its words: in a message, or in the title if `message_id` is None."""

    message_id: str | None = None
    role: str | None = None
    excerpt: str
    marks: list[Mark] = Field(default_factory=list)


class Chat(Resource):
    """A conversation; `hits` are None unless words were searched."""

    version: int
    id: str
    title: str | None
    archived: bool = False
    pinned: bool = False
    tags: list[str] = Field(default_factory=list)
    leaf_id: str | None = None
    last_message: LastMessage | None = None
    active_turn: ActiveTurn | None = None
    created_at: datetime
    updated_at: datetime
    hits: list[ChatHit] | None = None


class TurnError(Resource):
    """Why a turn failed."""

    code: str
    message: str
    retryable: bool = False


class TextPart(Resource):
    """Text; the text parts of a message add up to its `content`."""

    type: Literal["text"] = "text"
    text: str


class ThinkingPart(Resource):
    """What the model thought before it continued."""

    type: Literal["thinking"] = "thinking"
    text: str


class JoinedMessagePart(Resource):
    """A message that joined the turn here, before the step; it is listed before the answer."""

    type: Literal["joined_message"] = "joined_message"
    message_id: str
    step: int


class AttachmentPart(Resource):
    """A file of the message, or an image that a tool returned. Units: `size` is in bytes."""

    type: Literal["attachment"] = "attachment"
    file_id: str
    name: str
    content_type: str
    size: int
    deleted: bool = False


class ToolCallPart(Resource):
    """A tool call and what it cost.

    A very long `input` is left out, and `input_bytes` is its size then; of a long `output` only
    the beginning is there. `turns.tool_call` returns both in full.
    """

    type: Literal["tool_call"] = "tool_call"
    tool_call_id: str
    step: int
    name: str
    status: str
    input: dict[str, JsonValue] | None = None
    input_bytes: int | None = None
    output: str | None = None
    output_truncated: bool = False
    error: str | None = None
    cost_usd: Decimal = Decimal(0)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attachments: list[AttachmentPart] = Field(default_factory=list)


class UnknownPart(Resource):
    """A part of a kind that this version of the client does not know, with its fields."""

    type: str


_PARTS: Final = frozenset({"text", "thinking", "tool_call", "attachment", "joined_message"})


def _kind_of_part(value: Any) -> str:  # noqa: ANN401 -- pydantic hands over anything
    name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return name if name in _PARTS else "unknown"


MessagePart: TypeAlias = Annotated[
    Annotated[TextPart, Tag("text")]
    | Annotated[ThinkingPart, Tag("thinking")]
    | Annotated[ToolCallPart, Tag("tool_call")]
    | Annotated[AttachmentPart, Tag("attachment")]
    | Annotated[JoinedMessagePart, Tag("joined_message")]
    | Annotated[UnknownPart, Tag("unknown")],
    Discriminator(_kind_of_part),
]
"""Any part of a message, distinguished by `type`."""


class Citation(Resource):
    """A memory or a passage of a document that was quoted to the model for an answer.

    `type` is `memory` or `passage`; `title` is the document's, or how the memory begins.
    """

    type: str
    id: str | None = None
    document_id: str | None = None
    version: int | None = None
    title: str | None = None
    score: float


class Feedback(Resource):
    """Feedback on an answer. `rating` is `up` or `down`."""

    rating: str
    reason: str | None = None
    text: str | None = None
    created_at: datetime
    updated_at: datetime


class ChatSummary(Resource):
    """A summary of a chat up to a message; it stands for these messages in later prompts."""

    id: str
    chat_id: str
    message_id: str
    version: int
    content: str
    messages: int
    model: str
    created_at: datetime


class Share(Resource):
    """A branch that everyone with its link can read, up to a message."""

    id: str
    chat_id: str
    message_id: str
    title: str | None = None
    created_at: datetime
    expires_at: datetime | None = None


class CreatedShare(Share):
    """A new share with its link, which is never shown again."""

    token: SecretStr | None = None
    url: str | None = None


class SharedMessage(Resource):
    """What was said."""

    role: str
    content: str
    created_at: datetime


class SharedConversation(Resource):
    """A shared branch, oldest message first."""

    title: str | None = None
    shared_at: datetime
    expires_at: datetime | None = None
    is_whole: bool
    messages: list[SharedMessage]


class Message(Resource):
    """A message of a chat. `role` is `user` or `assistant`.

    It follows the message `parent_id`, if any. `sibling_ids` are all messages in its place, itself
    included: the versions of a question, or the answers to it. They are None unless asked for.
    `parts` are None in a `done` event, whose events were the parts. `joined_step` is the step
    before which it joined its turn. `structured` is the answer as a value that fits the turn's
    `response_schema`; None if it doesn't, or if none was given.
    """

    id: str
    chat_id: str
    turn_id: str
    parent_id: str | None = None
    role: str
    content: str
    parts: list[MessagePart] | None = None
    citations: list[Citation] = Field(default_factory=list)
    status: str
    error: TurnError | None = None
    model: str | None = None
    usage: TokenUsage | None = None
    cost_usd: Decimal | None = None
    stop_reason: str | None = None
    metadata: dict[str, JsonValue] | None = None
    structured: JsonValue = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    joined_step: int | None = None
    feedback: Feedback | None = None
    sibling_ids: list[str] | None = None


class Turn(Resource):
    """One answer of the model.

    `status` is `queued`, `running`, `awaiting_approval`, `completed`, `failed` or `cancelled`.
    Its message was to join the turn `steers`, and did if there is a `joined_step`.
    """

    id: str
    chat_id: str
    status: str
    model: str
    user_message_id: str
    assistant_message_id: str | None = None
    regenerates: str | None = None
    steers: str | None = None
    joined_step: int | None = None
    options: dict[str, JsonValue] | None = None
    error: TurnError | None = None
    usage: TokenUsage
    cost_usd: Decimal
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class PendingToolCall(Resource):
    """A tool call that awaits approval; of a very long `input` only the size is given."""

    tool_call_id: str
    step: int
    name: str
    input: dict[str, JsonValue] | None = None
    input_bytes: int | None = None
    created_at: datetime
    expires_at: datetime


class ListedTurn(Turn):
    """A turn in a list, with its tool calls that await approval."""

    pending_tool_calls: list[PendingToolCall] = Field(default_factory=list)


class ModelPrices(Resource):
    """Units: USD per million tokens; of a model with several, those of a short prompt."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal


class ModelAbilities(Resource):
    """What a model takes and does; None where it is unknown."""

    tools: bool | None = None
    images: bool | None = None
    pdf: bool | None = None
    thinking: bool | None = None
    structured: bool | None = None
    thinking_off: bool | None = None
    temperature: bool | None = None


class OfferedModel(Resource):
    """A model that the caller may choose."""

    id: str
    name: str | None = None
    provider: str | None = None
    is_default: bool = False
    context_window: int | None = None
    max_output_tokens: int | None = None
    prices: ModelPrices | None = None
    abilities: ModelAbilities = ModelAbilities()


class Answer(Resource):
    """A turn with its messages; `assistant_message` is None while the turn is still running."""

    turn: Turn
    user_message: Message | None = None
    assistant_message: Message | None = None


class ToolCall(Resource):
    """A tool call with its whole input, which events leave out if it is long."""

    turn_id: str
    step: int
    tool_call_id: str
    name: str
    status: str
    input: dict[str, JsonValue]
    output: str | None = None
    expires_at: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class DecidedToolCall(Resource):
    """A tool call after a decision about it."""

    turn_id: str
    step: int
    tool_call_id: str
    name: str
    status: str
    decision: str
    reason: str | None = None
    input: dict[str, JsonValue]
