"""The audit log: who did what to which resource, from where; written, and searched by admins.

Entries are written in the transaction of what they record. The API sets the origin of each
request; what no request asked for, e.g. a sweep, has none. Of an address only the network is
recorded, because entries outlive their users.
"""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final
from uuid import UUID

from pydantic.alias_generators import to_camel
from sqlalchemy import ARRAY, Text, any_, bindparam
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, AuditEntry, AuditFilter, ResourceType
from schema.ids import new_id
from schema.pages import Page, PageRequest
from schema.tables import AuditRow
from services.database import Connection, Database
from services.database.queries import Listing, Order, created_within, equals, ids_within

_NETWORK_BITS: Final = {4: 24, 6: 48}
_INSERT: Final = """
INSERT INTO audit_log (id, actor_type, actor_id, action, resource_type, resource_id, subject_id,
  request_id, address)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_NEWEST_FIRST: Final = Order("-createdAt", (col(AuditRow.id),), descending=True)
_ENTRIES: Final = Listing(
    select(AuditRow),
    {
        **equals(
            *(col(AuditRow.actor_id), col(AuditRow.subject_id), col(AuditRow.request_id)),
            *(col(AuditRow.resource_type), col(AuditRow.resource_id)),
        ),
        **created_within(AuditRow),
        "action": col(AuditRow.action) == any_(bindparam("action", type_=ARRAY(Text))),
    },
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The request on whose behalf an action happens; `network` and `user_agent` are its client's.

    The log keeps no user agent.
    """

    request_id: str | None = None
    network: str | None = None
    user_agent: str | None = None


_origin: ContextVar[Origin] = ContextVar("everturn_origin", default=Origin())  # noqa: B039 -- frozen


def set_origin(origin: Origin) -> None:
    """Set the origin of this task and of the tasks that it starts."""
    _origin.set(origin)


def current_origin() -> Origin:
    """Return the origin of this task."""
    return _origin.get()


# Clients return: to parse an address costs as much as to look up a token.
@lru_cache(maxsize=1024)
def network_of(host: str) -> str | None:
    """Return the network of an IP address, e.g. `203.0.113.0/24`; None for anything else."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return str(ip_network((address, _NETWORK_BITS[address.version]), strict=False))


def record(
    session: AsyncSession,
    actor: Actor,
    action: AuditAction,
    resource: tuple[ResourceType, object | None],
    *,
    subject_id: UUID | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry, which is stored if the session's transaction commits.

    `details` are names, numbers and ids: the log outlives what people wrote, so it never quotes.
    `subject_id` is the owner of the resource, unless that is the actor.
    """
    session.add(
        AuditRow(**_entry(actor, action, resource, subject_id), details=dict(details or {}))
    )


def changed(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the details of a change of fields, by the names that clients use."""
    return {"changed": sorted(map(to_camel, names))}


async def record_plainly(
    connection: Connection,
    actor: Actor,
    action: AuditAction,
    resource: tuple[ResourceType, object | None],
    *,
    subject_id: UUID | None = None,
) -> None:
    """Store an entry on a connection of the driver."""
    await connection.execute(_INSERT, *_entry(actor, action, resource, subject_id).values())


def _entry(
    actor: Actor,
    action: AuditAction,
    resource: tuple[ResourceType, object | None],
    subject_id: UUID | None,
) -> dict[str, Any]:
    """Return the columns of an entry except its details, in the order of `_INSERT`."""
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


class AuditService:
    """Searches the audit log. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(
        self, actor: Actor, chosen: AuditFilter, page: PageRequest
    ) -> Page[AuditEntry]:
        """Return the entries that match the filter, newest first.

        Errors: InvalidCursorError.
        """
        wanted = {**vars(chosen), **ids_within(chosen), "action": chosen.action or None}
        async with self._database.statements(actor) as connection:
            rows = await _ENTRIES.read(connection, page, _NEWEST_FIRST, wanted)
        return rows.map(AuditEntry.model_validate)
