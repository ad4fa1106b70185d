"""Owns plans: what their subscribers may use, how often, and for how much."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schema.ids import PlanId
from schema.tools import ApprovalPolicy, ToolName
from schema.wire import (
    ChangeModel,
    FilterModel,
    RequestModel,
    StorableText,
    Timestamp,
    Usd,
    VersionedModel,
    unset,
)

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
ModelName = Annotated[StorableText, Field(min_length=1, max_length=100)]

# JSON has neither tuples nor decimals: these two are made from lists, strings and numbers.
_ModelNames = Annotated[tuple[ModelName, ...], Field(strict=False, max_length=100)]
_ToolNames = Annotated[tuple[ToolName, ...], Field(strict=False, max_length=1_000)]
_Budget = Annotated[
    Usd,
    Field(
        strict=False,
        ge=0,
        le=Decimal(1_000_000_000),
        max_digits=20,
        decimal_places=10,
        examples=["25.00"],
    ),
]


ToolApprovals = Annotated[
    dict[ToolName, Annotated[ApprovalPolicy, Field(strict=False)]],
    Field(max_length=1_000, examples=[{"web_search": "ask"}]),
]


class RateLimits(RequestModel):
    """How often a user may do what."""

    requests_per_minute: Annotated[Count, Field(ge=1)] = 600
    messages_per_minute: Annotated[Count, Field(ge=1)] = 60
    searches_per_minute: Annotated[Count, Field(ge=1)] = 120
    uploads_per_hour: Annotated[Count, Field(ge=1)] = 300
    exports_per_hour: Annotated[Count, Field(ge=1)] = 10


class Entitlements(RequestModel):
    """What a plan allows; null allows all that there is. Units: USD for a period of a month."""

    models: Annotated[
        _ModelNames | None,
        Field(description="Each has to be one of this server's.", examples=[["claude-haiku-5-5"]]),
    ] = None
    tools: Annotated[
        _ToolNames | None,
        Field(description="Names may be of tools that are added later.", examples=[["calculator"]]),
    ] = None
    tool_approvals: Annotated[
        ToolApprovals,
        Field(description="The least that has to be approved, by the names of tools."),
    ] = Field(default_factory=dict)
    rates: RateLimits = RateLimits()
    budget_usd: Annotated[
        _Budget | None,
        Field(
            description="What may be spent in a period. It is recorded, and shown with the usage; "
            "it is not yet a limit of turns."
        ),
    ] = None
    max_web_searches: Annotated[
        Count | None,
        Field(
            description="How often `web_search` may search in a period. Searches that failed do "
            "not count."
        ),
    ] = None
    max_memories: Annotated[Count, Field(le=50_000)] = 10_000
    max_documents: Count = 1_000
    max_document_bytes: Annotated[
        int,
        Field(
            ge=1,
            le=100 * 1024 * 1024,
            description="How large a document may be. The server's own limit, "
            "`EVERTURN_MAX_DOCUMENT_BYTES`, holds too: the smaller of both wins.",
        ),
    ] = 20 * 1024 * 1024
    max_api_keys: Annotated[Count, Field(le=1_000)] = 20


class Plan(VersionedModel):
    """A plan. One that is not active keeps its subscribers and gets no new ones."""

    id: PlanId
    name: str
    description: str
    entitlements: Entitlements
    is_default: bool = Field(description="Whether it is that of everybody who was given none.")
    active: bool
    created_at: Timestamp
    updated_at: Timestamp


PlanName = Annotated[StorableText, Field(min_length=1, max_length=100, examples=["Team"])]
PlanDescription = Annotated[StorableText, Field(max_length=1000, examples=["For small teams."])]


class PlanSort(StrEnum):
    """The orders of a list of plans; a minus puts the largest first."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    NAME = "name"
    NAME_LAST = "-name"


class PlanFilter(FilterModel):
    """Which plans are listed."""

    active: Annotated[bool | None, Field(description="Only those that are given out, or not.")] = (
        None
    )


class CreatePlanRequest(RequestModel):
    """A new plan, which is active; what its entitlements leave out is as it is by default."""

    name: PlanName
    description: PlanDescription = ""
    entitlements: Entitlements = Entitlements()
    is_default: bool = False


class ChangePlanRequest(ChangeModel):
    """A change of a plan. Entitlements come as a whole: what they leave out is the default."""

    name: PlanName = unset()
    description: PlanDescription = unset()
    entitlements: Entitlements = unset()
    is_default: bool = unset()
    active: bool = unset()
