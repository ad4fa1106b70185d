"""Budgets that reach 50, 80 or 100 %: notices for the turn's user, and alerts of refusals.

Alerts are raised in the database, by a trigger in the transaction that settles a charge, so that
none is missed or doubled whatever dies (docs/decisions/0044-alerts-of-budgets.md).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import structlog
from cachetools import TTLCache

from schema.actors import SERVICE
from schema.budgets import BudgetExceeded, BudgetScope, BudgetUnit, BudgetWindow
from schema.events import NoticeEvent
from schema.ids import TurnId, UserId
from schema.result import Err, Result
from schema.tables.columns import utc_now
from services.alerts import OnAlert
from services.database import Connection, Database, DatabaseUnavailableError
from services.metrics import count_budget_refusal

_log = structlog.get_logger(__name__)

BUDGET_REACHED: Final = "budget_reached"
"""The code of the notice."""


class ReachedBudget(NamedTuple):
    """An alert that a turn has raised and not shown yet: its key and its details."""

    key: str
    details: Mapping[str, Any]


ReachedBudgets: TypeAlias = Sequence[ReachedBudget]

_ALL: Final = 100
_NOTHING: Final = Decimal(0)
_REMEMBERED: Final = 10_000
_LIFETIME_S: Final = 60.0
UNREPORTED_IN_TURN: Final = """
    SELECT jsonb_agg(to_jsonb(reached)) FROM everturn_unreported($1, false) AS reached
"""
"""The query of a turn's alerts that were not shown in it, for a statement whose $1 is the turn."""

_UNREPORTED: Final = "SELECT key, details FROM everturn_unreported($1, true)"
_REPORTED: Final = "UPDATE alerts SET unreported_in = NULL WHERE dedup_key = ANY($1::text[])"
_REFUSED: Final = """
SELECT count(*) FROM everturn_reach_budgets(
    $1, coalesce($2, (SELECT api_key_id FROM turns WHERE id = $3)), NULL, $4, $5, $6, $7)
"""
_OWNERS: Final = {BudgetScope.USER: "your", BudgetScope.API_KEY: "this API key's"}
_KINDS: Final = {
    (BudgetWindow.DAY, BudgetUnit.USD): "daily budget",
    (BudgetWindow.DAY, BudgetUnit.TOKENS): "daily token budget",
    (BudgetWindow.MONTH, BudgetUnit.USD): "monthly budget",
    (BudgetWindow.MONTH, BudgetUnit.TOKENS): "monthly token budget",
}


async def read_reached(connection: Connection, turn_id: TurnId) -> ReachedBudgets:
    """Return the budgets that the turn has brought to a threshold and not shown yet.

    It counts what the transaction has settled, and must be its last statement: days of usage stay
    locked from here on.
    """
    return [ReachedBudget(*row) for row in await connection.fetch(_UNREPORTED, turn_id)]


def reached_from(found: Sequence[Mapping[str, Any]] | None) -> ReachedBudgets:
    """Return the budgets that `UNREPORTED_IN_TURN` found."""
    return [ReachedBudget(**one) for one in found or ()]


async def mark_reported(database: Database, reached: ReachedBudgets) -> None:
    """Store that the turn's notices are in its stream. In an outage they come once more."""
    if not reached:
        return
    keys = [budget.key for budget in reached]
    try:
        async with database.statements(SERVICE) as connection:
            await connection.execute(_REPORTED, keys)
    except DatabaseUnavailableError:
        _log.warning("notices_not_marked", keys=keys)


def notices_of(reached: ReachedBudgets) -> list[NoticeEvent]:
    """Return a notice for each budget of the user's, of the highest threshold that it has reached.

    How much of the installation's budget is left is not theirs to know; a day or period that has
    ended while its last call was running is no news to them.
    """
    now = utc_now()
    highest = {
        (details["scope"], details["window"], details["unit"]): details
        for _, details in sorted(reached, key=lambda one: int(one.details["threshold"]))
        if details["scope"] != BudgetScope.INSTALLATION and _end_of(details) > now
    }
    return [
        NoticeEvent(code=BUDGET_REACHED, message=_sentence(details)) for details in highest.values()
    ]


def _sentence(details: Mapping[str, Any]) -> str:
    owner = _OWNERS[BudgetScope(details["scope"])]
    kind = _KINDS[BudgetWindow(details["window"]), BudgetUnit(details["unit"])]
    used = "All" if details["threshold"] == _ALL else f"{details['threshold']}%"
    resets_at = _end_of(details)
    return f"{used} of {owner} {kind} is used. It resets at {resets_at:%Y-%m-%d %H:%M} UTC."


def _end_of(details: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(details["resetsAt"])


class BudgetAlerts:
    """Alerts of budgets, as turns come across them."""

    def __init__(self, database: Database, on_alert: OnAlert) -> None:
        self._database = database
        self._on_alert = on_alert
        # A client that is refused may try again at once, and a crowd is refused at the same time.
        self._stored: TTLCache[tuple[object, ...], bool] = TTLCache(_REMEMBERED, ttl=_LIFETIME_S)

    def report(self, reached: ReachedBudgets) -> list[NoticeEvent]:
        """Start the delivery of the alerts, and return the notices for the turn's user.

        Once they are published, call `reported`: until then the turn shows them again at the end
        of its next step, or at its own.
        """
        if reached:
            self._on_alert()
        return notices_of(reached)

    async def reported(self, reached: ReachedBudgets) -> None:
        """Store that the turn's notices are in its stream."""
        await mark_reported(self._database, reached)

    async def notice_refusal(
        self, user_id: UserId, decided: Result[object, object], *, api_key_id: UUID | None
    ) -> None:
        """Raise the alert, as `refused` does, if a request was refused for a budget."""
        if isinstance(decided, Err) and isinstance(decided.error, BudgetExceeded):
            await self.refused(user_id, decided.error, api_key_id=api_key_id)

    async def refused(
        self,
        user_id: UserId,
        refusal: BudgetExceeded,
        *,
        api_key_id: UUID | None = None,
        turn_id: TurnId | None = None,
        least: Decimal = _NOTHING,
    ) -> None:
        """Raise the alert that the budget refused a call, once, unless it is known to be used up.

        It is critical where calls have used so much that not even `least` is left, in the
        refusal's unit; otherwise a warning, which a critical one may follow. The API key is the
        turn's where none is given.
        After the transaction that was refused: that one may be rolled back. What can't be stored
        is logged: the refusal itself stands, and the next one tries again.
        """
        count_budget_refusal(refusal)
        budget = (refusal.scope.value, refusal.unit.value, refusal.window.value)
        key = (user_id, api_key_id, turn_id, *budget, least)
        if key in self._stored:
            return
        self._stored[key] = True
        try:
            async with self._database.statements(SERVICE) as connection:
                raised: int = await connection.fetchval(
                    _REFUSED, user_id, api_key_id, turn_id, *budget, least
                )
        except Exception:  # noqa: BLE001 -- whatever it is, the user gets the refusal
            self._stored.pop(key, None)
            _log.exception("budget_alert_not_stored", scope=refusal.scope.value)
            return
        if raised:
            self._on_alert()
