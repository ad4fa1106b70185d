"""Owns memories as clients see and send them, and as they are suggested."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from schema.ids import MemoryId, TurnId
from schema.wire import (
    ChangeModel,
    FilterModel,
    RequestModel,
    StorableText,
    Timestamp,
    VersionedModel,
    WireModel,
    unset,
)

_IMPORTANCE_DECIMALS: Final = 4


class MemoryKind(StrEnum):
    """What a memory tells."""

    FACT = "fact"
    PREFERENCE = "preference"
    INSTRUCTION = "instruction"
    EVENT = "event"


class MemoryStatus(StrEnum):
    """What the user has decided; only what is accepted is found and used."""

    SUGGESTED = "suggested"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


def kept_importance(importance: float) -> float:
    """Return an importance as it is kept: exact to four decimals, which single precision holds."""
    # Adding zero takes the sign from a minus zero.
    return round(importance, _IMPORTANCE_DECIMALS) + 0.0


class Memory(VersionedModel):
    """Something worth remembering of a user; `source_turn_id` is where it was said."""

    id: MemoryId
    kind: MemoryKind
    content: str
    importance: Annotated[float, AfterValidator(kept_importance)]
    status: MemoryStatus
    source_turn_id: TurnId | None
    created_at: Timestamp
    updated_at: Timestamp


class MemoryHit(Memory):
    """A memory that was found. Units: `score` is cosine similarity in [-1, 1], 1 the closest."""

    score: float


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
# JSON has no enums, so that a strict model would refuse their names.
ChosenKind = Annotated[MemoryKind, Field(strict=False)]


class MemorySort(StrEnum):
    """The orders of a list of memories; a minus puts the largest first."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    UPDATED = "updatedAt"
    UPDATED_LAST = "-updatedAt"
    IMPORTANCE = "importance"
    IMPORTANCE_LAST = "-importance"


class MemoryFilter(FilterModel):
    """Which memories are listed."""

    status: Annotated[
        MemoryStatus | None,
        Field(description="Only those of this status; without it, all but the rejected ones."),
    ] = None
    kind: MemoryKind | None = None
    search: Annotated[
        StorableText | None,
        Field(min_length=1, max_length=200, description="Words in the content, as they stand."),
    ] = None


class CreateMemoryRequest(RequestModel):
    """A new memory."""

    content: MemoryContent
    kind: ChosenKind = MemoryKind.FACT
    importance: Importance = 0.5


class ChangeMemoryRequest(ChangeModel):
    """Other words, another kind or another importance."""

    content: MemoryContent = unset()
    kind: ChosenKind = unset()
    importance: Importance = unset()


class SearchMemoriesRequest(RequestModel):
    """What memories are looked for by meaning."""

    query: Annotated[
        StorableText,
        Field(min_length=1, max_length=4000, examples=["How do they like to travel?"]),
        AfterValidator(_not_blank),
    ]
    limit: Annotated[int, Field(ge=1, le=100, description="How many hits at most.")] = 10


class MemorySuggestion(WireModel):
    """What may be worth remembering of a conversation, before the user has seen it.

    Errors: pydantic.ValidationError for what could not be stored.
    """

    content: MemoryContent
    kind: MemoryKind = MemoryKind.FACT
    importance: Importance = 0.5
