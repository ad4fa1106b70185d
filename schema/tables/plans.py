"""Rows of plans and subscriptions."""

from datetime import datetime
from typing import Any
from uuid import UUID

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
