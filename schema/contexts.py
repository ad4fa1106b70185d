"""Owns what a turn's prompt is made of: the text of its layers, and where they came from.

Kept with the turn, so that every call of the turn sends the same, and it can be explained later.
"""

from enum import StrEnum
from typing import Any
from uuid import UUID

from schema.tools import ApprovalPolicy
from schema.wire import WireModel


class SourceType(StrEnum):
    """The kinds of things that a prompt's context quotes."""

    MEMORY = "memory"
    DOCUMENT = "document"


class ContextSource(WireModel):
    """Something that the context quotes, and how well it matched the message."""

    type: SourceType
    id: UUID
    version: int | None = None
    score: float


class OfferedTool(WireModel):
    """A tool as the model is told of it, and whether a call of it is to be approved."""

    name: str
    description: str
    input_schema: dict[str, Any]
    approval: ApprovalPolicy = ApprovalPolicy.AUTO


class PromptLayers(WireModel):
    """The layers that come before the conversation, from stable to changing.

    `version` names the base prompt; a layer with nothing to say is empty.
    """

    version: str
    system: str
    tools: str = ""
    user: str = ""
    context: str = ""
    offered: tuple[OfferedTool, ...] = ()
