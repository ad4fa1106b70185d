"""Subscriptions: assigned plans, periods and usage."""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schema.budgets import WindowUse
from schema.ids import PlanId, UserId
from schema.plans import Entitlements, ModelName
from schema.time_ranges import TimeRange
from schema.usage import TokenUsage
from schema.wire import (
    Moment,
    RequestModel,
    Timestamp,
    Usd,
    VersionedModel,
    WireModel,
)


class Period(WireModel):
    """A month of a subscription, from `start` (inclusive) to `end` (exclusive)."""

    start: Timestamp
    end: Timestamp


class SubscribedPlan(WireModel):
    """A plan as its subscribers see it."""

    id: PlanId
    name: str
    description: str
    entitlements: Entitlements


class Subscription(WireModel):
    """A user's plan; `since` is null for the default plan."""

    plan: SubscribedPlan
    period: Period
    since: Timestamp | None


class Quota(WireModel):
    """The current number of a resource that a plan limits."""

    used: int
    limit: int


class PeriodQuota(WireModel):
    """The number used in a period; `limit` is null if the plan sets none."""

    used: int
    limit: int | None


class Budget(WireModel):
    """The budget of a period in USD and what is left of it, null without a limit.

    `leftUsd` counts what is reserved for running calls as spent. `day` and `month` are all budgets
    of the current day and period, null for another period.
    """

    limit_usd: Usd | None
    left_usd: Usd | None
    day: WindowUse | None
    month: WindowUse | None


class SubscriptionUsage(WireModel):
    """A user's usage in a period.

    Tokens, costs and turns still count after a chat is deleted; messages and tool calls don't.
    Memories and documents are current numbers.
    """

    period: Period
    usage: TokenUsage
    cost_usd: Usd
    cache_saved_usd: Usd = Field(
        description="What the same prompts would have cost more without the provider's cache: the "
        "discount on what was read, less the surcharge on what was written. An estimate by today's "
        "prices of short prompts; negative if writing cost more than reading saved."
    )
    turns: int
    messages: int
    tool_calls: int
    memories: Quota
    documents: Quota
    web_searches: PeriodQuota
    budget: Budget


class PlanAssignment(VersionedModel):
    """The assignment of a plan to a user; its periods start at `startedAt`."""

    user_id: UserId
    plan_id: PlanId
    started_at: Timestamp
    updated_at: Timestamp


class AssignPlanRequest(RequestModel):
    """The plan to assign."""

    plan_id: Annotated[
        PlanId,
        Field(strict=False, examples=["01900000-0000-7000-8000-000000000001"]),
    ]
    started_at: Annotated[
        Annotated[Moment, Field(ge=datetime(2000, 1, 1, tzinfo=UTC))] | None,
        Field(
            description="The start of the first period, not in the future. By default the current "
            "periods continue, or start on the first of this month in UTC if no plan was assigned "
            "before, so that usage in the current period still counts.",
            examples=["2026-01-31T09:00:00Z"],
        ),
    ] = None


class UsageGrouping(StrEnum):
    """How usage is grouped; days are in UTC."""

    USER = "user"
    MODEL = "model"
    DAY = "day"


class UsageFilter(TimeRange):
    """The part of the ledger to sum up, and the grouping; the last 30 days by default."""

    group_by: Annotated[UsageGrouping, Field(description="How to group the rows.")] = (
        UsageGrouping.USER
    )
    user_id: UserId | None = None
    model: ModelName | None = None


class UsageSums(WireModel):
    """The sum of model calls and paid tool calls, running ones included."""

    calls: int
    turns: int = Field(description="Turns whose first call is in this group.")
    usage: TokenUsage
    cost_usd: Usd


class UsageRow(UsageSums):
    """The usage of one user, model or day; the other two fields are null."""

    user_id: UserId | None = None
    model: str | None = None
    day: date | None = None
