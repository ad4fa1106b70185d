"""Owns alerts as administrators look at them; what raises them is `raising.py`."""

from typing import Final

from sqlmodel import col, select

from schema.actors import Actor
from schema.alerts import Alert, AlertFilter
from schema.pages import Page, PageRequest
from schema.tables import AlertRow
from services.alerts.rows import alert_from_row
from services.database import Database
from services.database.queries import Listing, Order, created_within, equals, ids_within

_NEWEST_FIRST: Final = Order("-createdAt", (col(AlertRow.id),), descending=True)
_ALERTS: Final = Listing(
    select(AlertRow),
    {
        **equals(col(AlertRow.kind), col(AlertRow.severity), col(AlertRow.user_id)),
        **created_within(AlertRow),
    },
)


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
        wanted = {**vars(chosen), **ids_within(chosen)}
        async with self._database.statements(actor) as connection:
            rows = await _ALERTS.read(connection, page, _NEWEST_FIRST, wanted)
        return rows.map(alert_from_row)
