"""Prompts as administrators write them: names, immutable versions, activations."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from schema.ids import PromptId, UserId
from schema.wire import RequestModel, StorableText, Timestamp, VersionedModel, WireModel


class Prompt(VersionedModel):
    """A named prompt; the prompt named `base` starts every turn's prompt."""

    id: PromptId
    name: str
    description: str
    latest_version: int = Field(description="The latest version's number; 0 if there is none.")
    active_version: int | None = Field(
        description="The version that turns use; null if there is none."
    )
    created_at: Timestamp
    updated_at: Timestamp


class PromptActivation(WireModel):
    """An activation of a version."""

    id: UUID
    number: int
    activated_by: UserId | None
    created_at: Timestamp


class PromptDetail(Prompt):
    """A prompt with its latest activations, newest first."""

    activations: list[PromptActivation]


class PromptVersion(WireModel):
    """One version of a prompt, which never changes."""

    prompt_id: PromptId
    number: int
    content: str
    note: str
    active: bool
    created_by: UserId | None
    created_at: Timestamp


class PromptSort(StrEnum):
    """The sort orders of a list of prompts; a minus reverses the order."""

    NAME = "name"
    NAME_LAST = "-name"
    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"


class PromptVersionSort(StrEnum):
    """The sort orders of a list of versions; a minus reverses the order."""

    NUMBER = "number"
    NUMBER_LAST = "-number"


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


PromptContent = Annotated[
    StorableText,
    Field(min_length=1, max_length=100_000, examples=["You are Ada, who answers in rhymes."]),
    AfterValidator(_not_blank),
]


class CreatePromptRequest(RequestModel):
    """A new prompt; `content` becomes its first version, which isn't active yet."""

    name: Annotated[
        StorableText, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", max_length=63, examples=["base"])
    ]
    description: Annotated[
        StorableText, Field(max_length=1000, examples=["What every answer begins with."])
    ] = ""
    content: PromptContent | None = None


class CreatePromptVersionRequest(RequestModel):
    """A new version; `note` describes the change."""

    content: PromptContent
    note: Annotated[StorableText, Field(max_length=1000, examples=["Shorter answers."])] = ""
