"""Alerts: what administrators need to know without looking for it."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import Field

from schema.ids import UserId
from schema.time_ranges import TimeRange
from schema.wire import Payload, Timestamp, WireModel


class AlertKind(StrEnum):
    """What happened, e.g. `budget.reached`; filters take these names."""

    BUDGET_REACHED = "budget.reached"
    DOCUMENT_FAILED = "document.failed"
    MCP_SERVER_FAILED = "mcp_server.failed"
    TOOL_REFUSED = "tool.refused"
    DEFECT = "defect"


class AlertSeverity(StrEnum):
    """How urgent an alert is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlertDeliveryStatus(StrEnum):
    """Whether an alert reached the webhook of the operator; `stored` ones are not sent to any."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    STORED = "stored"


class Alert(WireModel):
    """Something that happened, with the user and the resource that it concerns."""

    id: UUID
    kind: str
    severity: AlertSeverity
    user_id: UserId | None
    resource_type: str | None
    resource_id: str | None
    details: dict[str, Any]
    created_at: Timestamp
    delivery_status: AlertDeliveryStatus = Field(
        description="Of the alert webhook; `failed` after a day of attempts, `stored` without one."
    )
    delivery_attempts: int
    delivery_problem: str | None = Field(description="Why the last attempt failed.")
    delivered_at: Timestamp | None


class AlertFilter(TimeRange):
    """Filters for a list of alerts."""

    kind: AlertKind | None = None
    severity: AlertSeverity | None = None
    user_id: UserId | None = None


class AlertDeliveryOutcome(Payload):
    """How many alerts an activity, or a run, of `DeliverAlerts` sent, and could not send."""

    delivered: int
    failed: int
