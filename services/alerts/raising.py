"""Owns raising alerts, in the transaction of what they tell of."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.alerts import AlertKind, AlertSeverity
from schema.audit import ResourceType
from schema.ids import UserId, new_id
from schema.tables import AlertRow


async def raise_alert(
    session: AsyncSession,
    kind: AlertKind,
    severity: AlertSeverity,
    *,
    user_id: UserId | None = None,
    resource: tuple[ResourceType, object] | None = None,
    details: Mapping[str, Any] | None = None,
    dedup_key: str | None = None,
) -> UUID | None:
    """Store an alert and return its id, or None where `dedup_key` has alerted before.

    The session is that of a service or of an administrator: users raise none. `details` are
    names, numbers and ids, never what a person wrote.
    Idempotency: one `dedup_key` alerts once, in however many transactions at a time.
    """
    row = AlertRow(
        id=new_id(),
        kind=kind.value,
        severity=severity.value,
        user_id=user_id,
        resource_type=None if resource is None else resource[0].value,
        resource_id=None if resource is None else str(resource[1]),
        details=dict(details or {}),
        dedup_key=dedup_key,
    )
    raised = (
        insert(AlertRow)
        .values(row.model_dump())
        .on_conflict_do_nothing(index_elements=[col(AlertRow.dedup_key)])
    )
    return (await session.exec(raised.returning(col(AlertRow.id)))).scalar_one_or_none()
