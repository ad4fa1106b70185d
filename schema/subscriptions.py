"""Owns who has which plan, the periods that this counts in, and what was used in them."""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

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
    """A month of a subscription: from `start` on, until just before `end`."""

    start: Timestamp
    end: Timestamp


class SubscribedPlan(WireModel):
    """A plan as its subscribers see it."""

    id: PlanId
    name: str
    description: str
    entitlements: Entitlements


class Subscription(WireModel):
    """The plan of a user; `since` is null where it is the one that everybody has."""

    plan: SubscribedPlan
    period: Period
    since: Timestamp | None


class Quota(WireModel):
    """How many there are now of what a plan limits."""

    used: int
    limit: int


class PeriodQuota(WireModel):
    """How many there were in a period of what a plan limits; null where nothing limits it."""

    used: int
    limit: int | None


class Budget(WireModel):
    """What may be spent in a period, and what is left of it; null where nothing limits it."""

    limit_usd: Usd | None
    left_usd: Usd | None


class SubscriptionUsage(WireModel):
    """What a user has used in a period.

    Tokens, costs and turns stay counted when a chat is deleted; messages and tool calls do not.
    Memories and documents are those that there are now.
    """

    period: Period
    usage: TokenUsage
    cost_usd: Usd
    turns: int
    messages: int
    tool_calls: int
    memories: Quota
    documents: Quota
    web_searches: PeriodQuota
    budget: Budget


class PlanAssignment(VersionedModel):
    """Which plan an administrator gave to a user; its periods begin at `started_at`."""

    user_id: UserId
    plan_id: PlanId
    started_at: Timestamp
    updated_at: Timestamp


class AssignPlanRequest(RequestModel):
    """The plan that a user is to have."""

    plan_id: Annotated[
        PlanId,
        Field(strict=False, examples=["01900000-0000-7000-8000-000000000001"]),
    ]
    started_at: Annotated[
        Annotated[Moment, Field(ge=datetime(2000, 1, 1, tzinfo=UTC))] | None,
        Field(
            description="When its periods begin, not in the future. Left out, the periods go on as "
            "they are: from where they began, or for who was given no plan before, from the first "
            "of this month in UTC. So what was used of the running period stays counted.",
            examples=["2026-01-31T09:00:00Z"],
        ),
    ] = None


class UsageGrouping(StrEnum):
    """By what usage is added up; a day is one of UTC."""

    USER = "user"
    MODEL = "model"
    DAY = "day"


class UsageFilter(TimeRange):
    """Which part of the ledger is added up, and by what: the last 30 days unless told otherwise."""

    group_by: Annotated[
        UsageGrouping, Field(description="What each row of the answer stands for.")
    ] = UsageGrouping.USER
    user_id: UserId | None = None
    model: ModelName | None = None


class UsageSums(WireModel):
    """What calls of models and of paid tools came to; those under way count as they stand."""

    calls: int
    turns: int = Field(description="Turns that began within; each counts where its first call is.")
    usage: TokenUsage
    cost_usd: Usd


class UsageRow(UsageSums):
    """The usage of one user, model or day; the other two are null."""

    user_id: UserId | None = None
    model: str | None = None
    day: date | None = None
