"""Owns turning rows of the audit log into what administrators see."""

from schema.actors import ActorType
from schema.audit import AuditEntry
from schema.tables import AuditRow


def entry_from_row(row: AuditRow) -> AuditEntry:
    """Return the entry that the row holds."""
    return AuditEntry(
        id=row.id,
        actor_type=ActorType(row.actor_type),
        actor_id=row.actor_id,
        action=row.action,
        resource_type=row.resource_type,
        resource_id=row.resource_id,
        subject_id=row.subject_id,
        request_id=row.request_id,
        # The driver gives an address as one, not as text.
        address=None if row.address is None else str(row.address),
        details=row.details,
        created_at=row.created_at,
    )
