"""Plans: what subscribers may use, how often, and for how much."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schema.budgets import BudgetLimits
from schema.ids import PlanId
from schema.tools import ApprovalPolicy, ToolName
from schema.wire import (
    ChangeModel,
    FilterModel,
    RequestModel,
    StorableText,
    Timestamp,
    VersionedModel,
    unset,
)

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
ModelName = Annotated[StorableText, Field(min_length=1, max_length=100)]

# JSON has neither tuples nor decimals: both are parsed from lists, strings and numbers.
_ModelNames = Annotated[tuple[ModelName, ...], Field(strict=False, max_length=100)]
_ToolNames = Annotated[tuple[ToolName, ...], Field(strict=False, max_length=1_000)]

ToolApprovals = Annotated[
    dict[ToolName, Annotated[ApprovalPolicy, Field(strict=False)]],
    Field(max_length=1_000, examples=[{"web_search": "ask"}]),
]


class RateLimits(RequestModel):
    """A user's rate limits."""

    requests_per_minute: Annotated[Count, Field(ge=1)] = 600
    messages_per_minute: Annotated[Count, Field(ge=1)] = 60
    searches_per_minute: Annotated[Count, Field(ge=1)] = 120
    uploads_per_hour: Annotated[Count, Field(ge=1)] = 300
    exports_per_hour: Annotated[Count, Field(ge=1)] = 10


class Entitlements(BudgetLimits):
    """What a plan includes; null means no limit. A month is a period of the subscription."""

    models: Annotated[
        _ModelNames | None,
        Field(
            description="Names of this server's models; null allows all.",
            examples=[["claude-haiku-5-5"]],
        ),
    ] = None
    tools: Annotated[
        _ToolNames | None,
        Field(
            description="Names of tools; null allows all. They need not exist yet.",
            examples=[["calculator"]],
        ),
    ] = None
    tool_approvals: Annotated[
        ToolApprovals,
        Field(description="Minimum approval policies, by tool."),
    ] = Field(default_factory=dict)
    rates: RateLimits = RateLimits()
    max_web_searches: Annotated[
        Count | None,
        Field(
            description="The number of `web_search` calls in a period. Failed searches don't count."
        ),
    ] = None
    max_memories: Annotated[Count, Field(le=50_000)] = 10_000
    max_documents: Count = 1_000
    max_document_bytes: Annotated[
        int,
        Field(
            ge=1,
            le=100 * 1024 * 1024,
            description="The size limit of a document. The server's own limit, "
            "`EVERTURN_MAX_DOCUMENT_BYTES`, applies too.",
        ),
    ] = 20 * 1024 * 1024
    max_thinking_tokens: Annotated[
        Count | None,
        Field(
            description="The most tokens that a message may have its model think with; below 1024 "
            "none may. Null means no limit."
        ),
    ] = None
    max_files: Count = 1_000
    max_file_bytes: Annotated[
        int,
        Field(
            ge=1,
            le=100 * 1024 * 1024,
            description="The size limit of a file. The server's own limit, "
            "`EVERTURN_MAX_FILE_BYTES`, applies too.",
        ),
    ] = 25 * 1024 * 1024
    max_stored_bytes: Annotated[
        int,
        Field(
            ge=0, le=2**50, description="The size limit of all files of a user, with renditions."
        ),
    ] = 1024 * 1024 * 1024
    max_api_keys: Annotated[Count, Field(le=1_000)] = 20
    max_open_streams: Annotated[
        Count,
        Field(ge=1, le=10_000, description="The number of event streams open at a time."),
    ] = 100


class Plan(VersionedModel):
    """A plan. An inactive plan keeps its subscribers and can't be assigned."""

    id: PlanId
    name: str
    description: str
    entitlements: Entitlements
    is_default: bool = Field(description="Whether this is the default plan.")
    active: bool
    created_at: Timestamp
    updated_at: Timestamp


PlanName = Annotated[StorableText, Field(min_length=1, max_length=100, examples=["Team"])]
PlanDescription = Annotated[StorableText, Field(max_length=1000, examples=["For small teams."])]


class PlanSort(StrEnum):
    """The sort orders of a list of plans; a minus reverses the order."""

    CREATED = "createdAt"
    CREATED_LAST = "-createdAt"
    NAME = "name"
    NAME_LAST = "-name"


class PlanFilter(FilterModel):
    """Filters for a list of plans."""

    active: Annotated[bool | None, Field(description="Filter by active.")] = None


class CreatePlanRequest(RequestModel):
    """A new, active plan; omitted entitlements get their defaults."""

    name: PlanName
    description: PlanDescription = ""
    entitlements: Entitlements = Entitlements()
    is_default: bool = False


class ChangePlanRequest(ChangeModel):
    """A change of a plan; `entitlements` are replaced as a whole."""

    name: PlanName = unset()
    description: PlanDescription = unset()
    entitlements: Entitlements = unset()
    is_default: bool = unset()
    active: bool = unset()
