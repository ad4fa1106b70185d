"""Alerts: what administrators need to know without looking for it; raised, and listed."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.alerts import Alert, AlertFilter, AlertKind, AlertSeverity
from schema.audit import ResourceType
from schema.ids import UserId, new_id
from schema.pages import Page, PageRequest
from schema.tables import AlertRow
from schema.tables.columns import utc_now
from services.database import Database
from services.database.queries import Listing, Order, created_within, equals, ids_within

OnAlert: TypeAlias = Callable[[], None]
"""Called once an alert's transaction has committed: starts its delivery, and waits for nothing."""

_NEWEST_FIRST: Final = Order("-createdAt", (col(AlertRow.id),), descending=True)
_ALERTS: Final = Listing(
    select(AlertRow),
    {
        **equals(col(AlertRow.kind), col(AlertRow.severity), col(AlertRow.user_id)),
        **created_within(AlertRow),
    },
)


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
    """Store an alert in the transaction of its cause, and return its id.

    The session is a service's or an administrator's: users raise no alerts. `details` are names,
    numbers and ids, never what a person wrote.
    Idempotency: one `dedup_key` alerts once, in any number of transactions; later calls return
    None.
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


class DefectAlerts:
    """Alerts of defects that ended some work. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, on_alert: OnAlert) -> None:
        self._database = database
        self._on_alert = on_alert

    async def report(self, activity: str, error: str) -> None:
        """Raise an alert, at most one a day for each activity and type of error.

        However much work a defect ends, one alert sends to the log, where each case is.
        """
        key = f"defect:{activity}:{error}:{utc_now().date()}"
        async with self._database.transaction(SERVICE) as session:
            raised = await raise_alert(
                session,
                AlertKind.DEFECT,
                AlertSeverity.CRITICAL,
                details={"activity": activity, "error": error},
                dedup_key=key,
            )
        if raised is not None:
            self._on_alert()


class AlertService:
    """Lists alerts. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_alerts(
        self, actor: Actor, chosen: AlertFilter, page: PageRequest
    ) -> Page[Alert]:
        """Return the alerts that match the filter, newest first.

        Errors: InvalidCursorError.
        """
        wanted = {**vars(chosen), **ids_within(chosen)}
        async with self._database.statements(actor) as connection:
            rows = await _ALERTS.read(connection, page, _NEWEST_FIRST, wanted)
        return rows.map(Alert.model_validate)
