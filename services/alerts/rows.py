"""Owns turning rows of alerts into what administrators see."""

from schema.alerts import Alert, AlertSeverity
from schema.ids import UserId
from schema.tables import AlertRow


def alert_from_row(row: AlertRow) -> Alert:
    """Return the alert that the row holds."""
    return Alert(
        id=row.id,
        kind=row.kind,
        severity=AlertSeverity(row.severity),
        user_id=None if row.user_id is None else UserId(row.user_id),
        resource_type=row.resource_type,
        resource_id=row.resource_id,
        details=row.details,
        created_at=row.created_at,
    )
