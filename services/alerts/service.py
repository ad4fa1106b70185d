"""Owns alerts as administrators look at them; what raises them is `raising.py`."""

from typing import Final

from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from schema.actors import Actor
from schema.alerts import Alert, AlertFilter
from schema.pages import Page, PageRequest
from schema.tables import AlertRow
from services.alerts.rows import alert_from_row
from services.database import Database
from services.database.filters import equal_to
from services.database.pages import Order, read_page
from services.database.time_ranges import within

_NEWEST_FIRST: Final = Order("-createdAt", (col(AlertRow.id),), descending=True)


class AlertService:
    """Shows alerts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_alerts(
        self, actor: Actor, chosen: AlertFilter, page: PageRequest
    ) -> Page[Alert]:
        """Return the alerts that the filter leaves, newest first.

        Errors: InvalidCursorError.
        """
        async with self._database.transaction(actor) as session:
            rows = await read_page(session, _filtered(chosen), _NEWEST_FIRST, page)
        return rows.map(alert_from_row)


def _filtered(chosen: AlertFilter) -> SelectOfScalar[AlertRow]:
    wanted = {
        col(AlertRow.kind): chosen.kind,
        col(AlertRow.severity): chosen.severity,
        col(AlertRow.user_id): chosen.user_id,
    }
    return within(equal_to(select(AlertRow), wanted), AlertRow, chosen)
