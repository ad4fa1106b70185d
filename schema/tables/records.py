"""Rows about requests: idempotent creations, the audit log, alerts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlmodel import Field, SQLModel

from schema.tables.columns import creation_moment, moment


class CreationRow(SQLModel, table=True):
    """The resource that a request with an idempotency key created; a retry creates no other."""

    __tablename__ = "creations"

    user_id: UUID = Field(primary_key=True, foreign_key="users.id")
    key: str = Field(primary_key=True)
    request_hash: bytes
    resource_id: str
    created_at: datetime = creation_moment()


class AuditRow(SQLModel, table=True):
    """Who did what to which resource; never changed, and without user content.

    `subject_id` is the resource's owner. Neither it nor `actor_id` refers to a row: the
    log outlives users.
    """

    __tablename__ = "audit_log"

    id: UUID = Field(primary_key=True)
    actor_type: str
    actor_id: UUID
    action: str
    resource_type: str
    resource_id: str | None = None
    subject_id: UUID | None = None
    request_id: str | None = None
    address: str | None = Field(default=None, sa_type=INET)
    details: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    created_at: datetime = creation_moment()


class AlertRow(SQLModel, table=True):
    """Something that administrators should know; each `dedup_key` alerts once.

    While its delivery is pending, `next_attempt_at` is when it is sent (again) to the webhook.
    `unreported_in` is the turn whose stream doesn't show it yet.
    """

    __tablename__ = "alerts"

    id: UUID = Field(primary_key=True)
    kind: str
    severity: str
    user_id: UUID | None = Field(default=None, foreign_key="users.id")
    resource_type: str | None = None
    resource_id: str | None = None
    details: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    dedup_key: str | None = None
    created_at: datetime = creation_moment()
    delivery_status: str = "pending"
    delivery_attempts: int = 0
    delivery_problem: str | None = None
    delivered_at: datetime | None = moment()
    next_attempt_at: datetime = creation_moment()
    unreported_in: UUID | None = None
