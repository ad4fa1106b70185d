"""Owns writing the audit log, in the transaction of what it tells of."""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from pydantic.alias_generators import to_camel
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.ids import new_id
from schema.tables import AuditRow
from services.audit.origin import current_origin
from services.database import Connection

_INSERT: Final = """
INSERT INTO audit_log (id, actor_type, actor_id, action, resource_type, resource_id, subject_id,
  request_id, address)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""


def record(
    session: AsyncSession,
    actor: Actor,
    action: AuditAction,
    resource: tuple[ResourceType, object | None],
    *,
    subject_id: UUID | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry, which is stored if the session's transaction is.

    `details` are names, numbers and ids: the log outlives what people wrote, so it quotes none.
    `subject_id` is whose thing it was, where that is not the actor.
    """
    session.add(
        AuditRow(**_entry(actor, action, resource, subject_id), details=dict(details or {}))
    )


def changed(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the details of a change of fields, named as clients know them."""
    return {"changed": sorted(map(to_camel, names))}


async def record_plainly(
    connection: Connection,
    actor: Actor,
    action: AuditAction,
    resource: tuple[ResourceType, object | None],
    *,
    subject_id: UUID | None = None,
) -> None:
    """Store an entry without the mapper."""
    await connection.execute(_INSERT, *_entry(actor, action, resource, subject_id).values())


def _entry(
    actor: Actor,
    action: AuditAction,
    resource: tuple[ResourceType, object | None],
    subject_id: UUID | None,
) -> dict[str, Any]:
    """Return an entry's columns without its details, in the order of `_INSERT`."""
    origin = current_origin()
    kind, resource_id = resource
    return {
        "id": new_id(),
        "actor_type": actor.type.value,
        "actor_id": actor.user_id,
        "action": action.value,
        "resource_type": kind.value,
        "resource_id": None if resource_id is None else str(resource_id),
        "subject_id": subject_id,
        "request_id": origin.request_id,
        "address": origin.network,
    }
