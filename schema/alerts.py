"""Owns alerts: what an administrator should know of without having looked for it."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from schema.ids import UserId
from schema.time_ranges import TimeRange
from schema.wire import Timestamp, WireModel


class AlertKind(StrEnum):
    """What happened, as `noun.verb`; filters take these names."""

    BUDGET_REACHED = "budget.reached"
    DOCUMENT_FAILED = "document.failed"
    MCP_SERVER_FAILED = "mcp_server.failed"


class AlertSeverity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Alert(WireModel):
    """Something that happened; `user_id` is whom it concerns, the resource what."""

    id: UUID
    kind: str
    severity: AlertSeverity
    user_id: UserId | None
    resource_type: str | None
    resource_id: str | None
    details: dict[str, Any]
    created_at: Timestamp


class AlertFilter(TimeRange):
    """Which alerts are listed."""

    kind: AlertKind | None = None
    severity: AlertSeverity | None = None
    user_id: UserId | None = None
