"""Owns the audit log as administrators search it; what writes it is `recording.py`."""

from typing import Final

from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from schema.actors import Actor
from schema.audit import AuditEntry, AuditFilter
from schema.pages import Page, PageRequest
from schema.tables import AuditRow
from services.audit.rows import entry_from_row
from services.database import Database
from services.database.filters import equal_to
from services.database.pages import Order, read_page
from services.database.time_ranges import within

_NEWEST_FIRST: Final = Order("-createdAt", (col(AuditRow.id),), descending=True)


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
        async with self._database.transaction(actor) as session:
            rows = await read_page(session, _filtered(chosen), _NEWEST_FIRST, page)
        return rows.map(entry_from_row)


def _filtered(chosen: AuditFilter) -> SelectOfScalar[AuditRow]:
    wanted = {
        col(AuditRow.actor_id): chosen.actor_id,
        col(AuditRow.subject_id): chosen.subject_id,
        col(AuditRow.resource_type): chosen.resource_type,
        col(AuditRow.resource_id): chosen.resource_id,
        col(AuditRow.request_id): chosen.request_id,
    }
    query = within(equal_to(select(AuditRow), wanted), AuditRow, chosen)
    if chosen.action:
        query = query.where(col(AuditRow.action).in_(chosen.action))
    return query
