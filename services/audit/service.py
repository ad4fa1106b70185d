"""Owns the audit log as administrators search it; what writes it is `recording.py`."""

from typing import Final

from sqlalchemy import ARRAY, Text, any_, bindparam
from sqlmodel import col, select

from schema.actors import Actor
from schema.audit import AuditEntry, AuditFilter
from schema.pages import Page, PageRequest
from schema.tables import AuditRow
from services.audit.rows import entry_from_row
from services.database import Database
from services.database.queries import Listing, Order, created_within, equals, ids_within

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


class AuditService:
    """Searches the audit log. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(
        self, actor: Actor, chosen: AuditFilter, page: PageRequest
    ) -> Page[AuditEntry]:
        """Return the entries that the filter leaves, newest first.

        Errors: InvalidCursorError.
        """
        wanted = {**vars(chosen), **ids_within(chosen), "action": chosen.action or None}
        async with self._database.statements(actor) as connection:
            rows = await _ENTRIES.read(connection, page, _NEWEST_FIRST, wanted)
        return rows.map(entry_from_row)
