"""The parts of a turn's prompt: the text of its layers, and their sources.

Stored with the turn, so that all its calls send the same prompt, and it can be explained later.
"""

from enum import StrEnum
from typing import Any
from uuid import UUID

from schema.tools import ApprovalPolicy
from schema.wire import WireModel


class SourceType(StrEnum):
    """The kinds of sources that a prompt's context quotes."""

    MEMORY = "memory"
    DOCUMENT = "document"


class ContextSource(WireModel):
    """A source that the context quotes, and how well it matched the message.

    The `id` of a passage is its document's; `title` is the document's when it was quoted.
    """

    type: SourceType
    id: UUID
    version: int | None = None
    passage_id: UUID | None = None
    title: str | None = None
    score: float


class OfferedTool(WireModel):
    """A tool as it is described to the model, and its approval policy."""

    name: str
    description: str
    input_schema: dict[str, Any]
    approval: ApprovalPolicy = ApprovalPolicy.AUTO


class PromptLayers(WireModel):
    """The layers around the conversation's messages, from stable to changing.

    `summary` is of the messages that are no longer sent, before the others; `context` stands behind
    them, in the turn's own message. `version` names the base prompt; a layer with nothing to say is
    empty.
    """

    version: str
    system: str
    tools: str = ""
    user: str = ""
    summary: str = ""
    context: str = ""
    offered: tuple[OfferedTool, ...] = ()
