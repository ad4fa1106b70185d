"""Memories as clients see and send them, and as they are suggested."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from schema.ids import MemoryId, TurnId
from schema.wire import (
    ChangeModel,
    FilterModel,
    Moment,
    RequestModel,
    StorableText,
    Timestamp,
    VersionedModel,
    WireModel,
    unset,
)

_IMPORTANCE_DECIMALS: Final = 4


class MemoryKind(StrEnum):
    """The kind of a memory."""

    FACT = "fact"
    PREFERENCE = "preference"
    INSTRUCTION = "instruction"
    EVENT = "event"


class MemoryStatus(StrEnum):
    """The status of a memory; only accepted memories are found and used."""

    SUGGESTED = "suggested"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    REPLACED = "replaced"


def kept_importance(importance: float) -> float:
    """Return an importance rounded to four decimals, which single precision can hold."""
    # Adding zero turns minus zero into zero.
    return round(importance, _IMPORTANCE_DECIMALS) + 0.0


class Memory(VersionedModel):
    """A memory of a user; `sourceTurnId` is the turn that it comes from.

    A suggestion has the `passage` of the user's message that it was learnt from. Accepting one
    with `replacesId` marks that memory as `replaced`, with this one as its `replacedById`.
    A `pinned` memory is in each prompt. One that has expired is listed, but not found or used.
    """

    id: MemoryId
    kind: MemoryKind
    content: str
    importance: Annotated[float, AfterValidator(kept_importance)]
    status: MemoryStatus
    source_turn_id: TurnId | None
    passage: str | None
    replaces_id: MemoryId | None
    replaced_by_id: MemoryId | None
    pinned: bool
    expires_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class MemoryHit(Memory):
    """A memory that matches a search."""

    score: float = Field(
        description="How good a match it is, in (0, 1]: its places by meaning and by words, fused, "
        "and a little of its importance and age. Comparable within one search only."
    )
    similarity: float | None = Field(
        description="The cosine similarity of its meaning to the query's, in [-1, 1]; null if "
        "either has no embedding."
    )
    word_match: float = Field(
        description="The share of the query's words that it contains, in [0, 1]; rare words "
        "count for more."
    )


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


MemoryContent = Annotated[
    StorableText,
    Field(min_length=1, max_length=4000, examples=["Prefers trains to planes."]),
    AfterValidator(_not_blank),
]
Importance = Annotated[
    float,
    Field(ge=0, le=1, allow_inf_nan=False, examples=[0.8]),
    AfterValidator(kept_importance),
]


def _in_the_future(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC):
        raise PydanticCustomError("datetime_future", "must be in the future")
    return moment


Expiry = Annotated[Moment, AfterValidator(_in_the_future)]
# JSON has no enums, so a strict model would reject their names.
ChosenKind = Annotated[MemoryKind, Field(strict=False)]


class MemorySort(StrEnum):
    """The sort orders of a list of memories; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    UPDATED = "updatedAt"
    UPDATED_LAST = "-updatedAt"
    IMPORTANCE = "importance"
    IMPORTANCE_LAST = "-importance"


class MemoryFilter(FilterModel):
    """Filters for a list of memories."""

    status: Annotated[
        MemoryStatus | None,
        Field(description="Filter by status; suggested and accepted ones by default."),
    ] = None
    kind: MemoryKind | None = None
    pinned: Annotated[bool | None, Field(description="Filter by pinned.")] = None
    expired: Annotated[bool | None, Field(description="Filter by expired; both by default.")] = None
    search: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=200, description="Filter by words in the content."),
    ] = None


def _is_default(value: object) -> bool:
    return not value


class CreateMemoryRequest(RequestModel):
    """A new memory."""

    content: MemoryContent
    kind: ChosenKind = MemoryKind.FACT
    importance: Importance = 0.5
    # Left out of the hash of a request as they are: those of before they existed stay the same.
    pinned: bool = Field(default=False, exclude_if=_is_default)
    expires_at: Expiry | None = Field(default=None, exclude_if=_is_default)


class ChangeMemoryRequest(ChangeModel):
    """A change of a memory; without `expiresAt`, null, it does not expire."""

    content: MemoryContent = unset()
    kind: ChosenKind = unset()
    importance: Importance = unset()
    pinned: bool = unset()
    expires_at: Expiry | None = unset()


class SearchMemoriesRequest(RequestModel):
    """A search for memories by meaning and words."""

    query: Annotated[
        StorableText,
        Field(min_length=1, max_length=4000, examples=["How do they like to travel?"]),
        AfterValidator(_not_blank),
    ]
    limit: Annotated[int, Field(ge=1, le=100, description="The maximum number of results.")] = 10


class MemorySuggestion(WireModel):
    """A memory suggested from a conversation, before the user has seen it.

    Errors: pydantic.ValidationError if it can't be stored.
    """

    content: MemoryContent
    kind: MemoryKind = MemoryKind.FACT
    importance: Importance = 0.5
    passage: Annotated[StorableText, Field(min_length=1, max_length=1000)] | None = None
    replaces_id: MemoryId | None = None
