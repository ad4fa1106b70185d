"""Chats and messages as clients see and send them."""

import json
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, JsonValue

from schema.feedback import Feedback
from schema.files import MOST_ATTACHMENTS
from schema.ids import ChatId, FileId, MessageId, SummaryId, TurnId
from schema.message_parts import Citation, MessagePart
from schema.turn_options import TurnOptions
from schema.turns import IfBusy, TurnError, TurnStatus
from schema.usage import TokenUsage
from schema.wire import (
    ChangeModel,
    FilterModel,
    Moment,
    RequestModel,
    StorableObject,
    StorableText,
    Timestamp,
    Usd,
    VersionedModel,
    VisibleText,
    WireModel,
    unset,
)


class MessageRole(StrEnum):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


class MessageStatus(StrEnum):
    """Whether a message is complete; a user's message always is."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class LastMessage(WireModel):
    """The message that ends the current branch; `text` is how it begins."""

    id: MessageId
    role: MessageRole
    text: str
    created_at: Timestamp


class ActiveTurn(WireModel):
    """The turn that runs or waits in a chat."""

    id: TurnId
    status: TurnStatus


class Mark(WireModel):
    """A place in an excerpt, from `start` up to `end`. Units: Unicode code points."""

    start: int
    end: int


class ChatHit(WireModel):
    """Where a search found its words: in a message, or in the title if `messageId` is null."""

    message_id: MessageId | None
    role: MessageRole | None
    excerpt: str
    marks: list[Mark]


class Chat(VersionedModel):
    """A conversation of one user; `leafId` is the last message of its current branch.

    `title` is null until its user or, after the first answer, a model has given it one.
    `updatedAt` is when its last message was sent or answered.
    """

    id: ChatId
    title: str | None
    archived: bool
    pinned: bool
    tags: list[str]
    leaf_id: MessageId | None
    last_message: LastMessage | None
    active_turn: ActiveTurn | None
    created_at: Timestamp
    updated_at: Timestamp
    hits: Annotated[
        list[ChatHit] | None,
        Field(
            exclude_if=lambda hits: hits is None,
            description="Where `q` was found: in the title, then in the newest messages.",
        ),
    ] = None


class MessageOutline(WireModel):
    """One message without its parts; with a status other than `completed` its text is incomplete.

    `parentId` is the message that it follows; null for a question that begins the conversation.
    What follows `error` is null for questions, and the sum of the whole turn for answers.
    `joinedStep` is the step before which a message joined its turn, which was running; 0 for an
    edit of such a message.
    """

    id: MessageId
    chat_id: ChatId
    turn_id: TurnId
    parent_id: MessageId | None
    role: MessageRole
    content: str
    status: MessageStatus
    created_at: Timestamp
    metadata: dict[str, JsonValue] | None = Field(
        default=None,
        # SQLAlchemy's rows have something else under the name `metadata`.
        validation_alias="client_metadata",
        description="The client's own data, as sent with the message.",
    )
    structured: JsonValue = Field(
        default=None,
        description="The answer as a value that fits the turn's `responseSchema`; null if it "
        "doesn't, or if none was given.",
    )
    joined_step: int | None = None
    citations: list[Citation] = Field(
        default_factory=list, description="What was quoted to the model for this answer."
    )
    error: TurnError | None = Field(
        None, description="Why the answer is incomplete, or why the question has none."
    )
    model: str | None = Field(None, description="The model of the last step.")
    usage: TokenUsage | None = None
    cost_usd: Usd | None = None
    stop_reason: str | None = Field(
        None, description="Why the model stopped, e.g. `end_turn`; null if it was stopped."
    )
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None


class Message(MessageOutline):
    """One message with its parts.

    `siblingIds` are all messages in its place, itself included: the versions of a question, or the
    answers to it; only where asked for.
    """

    parts: list[MessagePart] = Field(
        description="What it consists of, in order: for an answer, each step's text and then its "
        "tool calls."
    )
    feedback: Feedback | None = None
    sibling_ids: Annotated[list[MessageId] | None, Field(exclude_if=lambda ids: ids is None)] = None


class ChatSummary(WireModel):
    """A summary of a conversation up to a message, which stands for these messages in prompts.

    `version` is how many summaries it is made of, itself included; `messages` is how many messages
    were summarised last.
    """

    id: SummaryId
    chat_id: ChatId
    message_id: MessageId
    version: int
    content: str
    messages: int
    model: str
    created_at: Timestamp


ALL_BRANCHES: Final = "all"

_MAX_METADATA_BYTES: Final = 8 * 1024

Branch = Annotated[
    MessageId | Literal["all"] | None,
    Field(
        description="The messages up to this one, or `all` messages of the chat; by default the "
        "current branch."
    ),
]


class MessageFilter(FilterModel):
    """Which messages of a chat are listed."""

    branch: Branch = None
    before: Annotated[
        MessageId | None, Field(description="Only messages before this one in the conversation.")
    ] = None
    after: Annotated[
        MessageId | None, Field(description="Only messages after this one in the conversation.")
    ] = None
    siblings: Annotated[bool, Field(description="Whether to add `siblingIds`.")] = False


class MessageSort(StrEnum):
    """The sort orders of a list of messages; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"


ChatTitle = Annotated[VisibleText, Field(min_length=1, max_length=200, examples=["Trip to Rome"])]


class ChatSort(StrEnum):
    """The sort orders of a list of chats; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    UPDATED = "updatedAt"
    UPDATED_LAST = "-updatedAt"
    TITLE = "title"
    TITLE_LAST = "-title"


class ArchivedFilter(StrEnum):
    """Whether a list holds archived chats, others, or both."""

    TRUE = "true"
    FALSE = "false"
    ANY = "any"


Tag = Annotated[
    VisibleText, AfterValidator(str.strip), Field(min_length=1, max_length=50, examples=["travel"])
]


class ChatFilter(FilterModel):
    """Filters for a list of chats."""

    q: Annotated[
        VisibleText | None,
        Field(
            min_length=1,
            max_length=200,
            description="Filter by words, or parts of words, that the title or a message has all.",
        ),
    ] = None
    search: Annotated[
        StorableText | None,
        Field(
            min_length=1,
            max_length=200,
            description="The old name of `q`.",
            json_schema_extra={"deprecated": True},
        ),
    ] = None
    archived: Annotated[
        ArchivedFilter, Field(description="Filter by archived; `any` lists all chats.")
    ] = ArchivedFilter.FALSE
    pinned: Annotated[bool | None, Field(description="Filter by pinned.")] = None
    tag: Annotated[
        list[Tag],
        Field(default_factory=list, max_length=20, description="Repeat to match all of them."),
    ]


class ImportedMessage(RequestModel):
    """A message of an imported conversation. Blank ones are left out.

    Consecutive messages of one role become one, with a blank line in between.
    """

    role: Annotated[MessageRole, Field(strict=False)]
    content: Annotated[StorableText, Field(max_length=100_000)]
    created_at: Moment | None = None


class CreateChatRequest(RequestModel):
    """A new chat; without a title, it gets one after its first answer."""

    title: ChatTitle | None = None
    messages: Annotated[
        tuple[ImportedMessage, ...],
        Field(
            strict=False,
            max_length=2_000,
            description="A conversation from elsewhere, oldest first, which the chat continues.",
        ),
    ] = ()


class ForkChatRequest(RequestModel):
    """A copy of a branch: up to a message, by default the whole current one."""

    message_id: Annotated[MessageId | None, Field(strict=False)] = None
    title: ChatTitle | None = None


def _distinct(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))


class ChangeChatRequest(ChangeModel):
    """A new title or tags, or whether the chat is archived or pinned."""

    title: ChatTitle = unset()
    archived: bool = unset()
    pinned: bool = unset()
    tags: Annotated[
        tuple[Tag, ...],
        AfterValidator(_distinct),
        Field(strict=False, max_length=20, description="All tags; an empty list removes them."),
    ] = unset()


class ChooseLeafRequest(RequestModel):
    """A message of the branch to show: it ends with the newest message that follows this one."""

    message_id: Annotated[MessageId, Field(strict=False)]


def _short_metadata(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if len(json.dumps(metadata, ensure_ascii=False).encode()) > _MAX_METADATA_BYTES:
        raise ValueError(f"must have at most {_MAX_METADATA_BYTES:,} bytes as JSON")
    return metadata


def _each_once(file_ids: tuple[FileId, ...]) -> tuple[FileId, ...]:
    if len(set(file_ids)) < len(file_ids):
        raise ValueError("must not name a file twice")
    return file_ids


class SendMessageRequest(TurnOptions):
    """A message to answer. The server's settings limit the length of `content`.

    Without `parentId` it follows the current branch. With the `parentId` of an earlier question it
    is an edit of that: another branch, which becomes the current one; null begins the
    conversation again.
    """

    content: Annotated[
        StorableText,
        Field(examples=["What is 12 * 34?"], description="It may be blank beside attachments."),
    ]
    stream: bool = False
    model: Annotated[StorableText, Field(min_length=1, max_length=100)] | None = None
    if_busy: Annotated[IfBusy, Field(strict=False)] = IfBusy.REJECT
    parent_id: Annotated[MessageId | None, Field(strict=False)] = None
    metadata: Annotated[
        Annotated[StorableObject, AfterValidator(_short_metadata)] | None,
        Field(
            description="Your own data, returned with the message and never sent to the model.",
            examples=[{"source": "widget"}],
        ),
    ] = None
    attachments: Annotated[
        tuple[Annotated[FileId, Field(strict=False)], ...],
        Field(
            strict=False,
            max_length=MOST_ATTACHMENTS,
            description="The IDs of uploaded files, which the model gets before the text.",
        ),
        AfterValidator(_each_once),
    ] = ()

    @property
    def names_parent(self) -> bool:
        """Whether `parent_id` was sent, if only as null."""
        return "parent_id" in self.model_fields_set
