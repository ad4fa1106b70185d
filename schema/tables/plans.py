"""Rows of plans, subscriptions and budgets."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Numeric
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment


class PlanRow(SQLModel, table=True):
    """What its subscribers may use; users without a subscription have the default plan."""

    __tablename__ = "plans"

    id: UUID = Field(primary_key=True)
    name: str
    description: str = ""
    entitlements: dict[str, Any] = Field(sa_type=JSONB)
    is_default: bool = False
    active: bool = True
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()


class SubscriptionRow(SQLModel, table=True):
    """The plan of a user. Periods are months that begin at `started_at`."""

    __tablename__ = "subscriptions"

    user_id: UUID = Field(primary_key=True, foreign_key="users.id")
    plan_id: UUID = Field(foreign_key="plans.id")
    started_at: datetime = creation_moment()
    version: int = 1
    updated_at: datetime = creation_moment()


class BudgetRow(SQLModel, table=True):
    """Limits of spending beside those of plans; null means no limit.

    `scope` is `user`: the limits replace the plan's for this user, all four of them; or `api_key`
    or `installation`: they apply beside the others. `subject_id` is the id of the user or key, or
    the nil UUID; `user_id` is the user, or the key's owner.
    """

    __tablename__ = "budgets"

    scope: str = Field(primary_key=True)
    subject_id: UUID = Field(primary_key=True)
    user_id: UUID | None = Field(default=None, foreign_key="users.id")
    budget_usd: Decimal | None = Field(default=None, sa_type=Numeric(20, 10))
    daily_budget_usd: Decimal | None = Field(default=None, sa_type=Numeric(20, 10))
    budget_tokens: int | None = Field(default=None, sa_type=BigInteger)
    daily_budget_tokens: int | None = Field(default=None, sa_type=BigInteger)
    version: int = 1
    created_at: datetime = creation_moment()
    updated_at: datetime = creation_moment()
