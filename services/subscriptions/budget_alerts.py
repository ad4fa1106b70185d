"""Budgets that reach 50, 80 or 100 %: notices for the turn's user, and alerts of refusals.

Alerts are raised in the database, by a trigger in the transaction that settles a charge, so that
none is missed or doubled whatever dies (docs/decisions/0044-alerts-of-budgets.md).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import structlog
from cachetools import TTLCache

from schema.actors import SERVICE
from schema.budgets import BudgetExceeded, BudgetScope, BudgetUnit, BudgetWindow
from schema.events import NoticeEvent
from schema.ids import TurnId, UserId
from schema.result import Err, Result
from services.alerts import OnAlert
from services.database import Connection, Database
from services.metrics import count_budget_refusal

_log = structlog.get_logger(__name__)

BUDGET_REACHED: Final = "budget_reached"
"""The code of the notice."""

ReachedBudgets: TypeAlias = Sequence[Mapping[str, Any]]
"""Details of the alerts that were raised, in the order of their keys."""

_ALL: Final = 100
_REMEMBERED: Final = 10_000
_LIFETIME_S: Final = 60.0
_TAKE: Final = "SELECT everturn_take_notices($1)"
_REFUSED: Final = """
SELECT count(*) FROM everturn_reach_budgets(
    $1, coalesce($2, (SELECT api_key_id FROM turns WHERE id = $3)), NULL, $4, $5, $6)
"""
_OWNERS: Final = {BudgetScope.USER: "your", BudgetScope.API_KEY: "this API key's"}
_KINDS: Final = {
    (BudgetWindow.DAY, BudgetUnit.USD): "daily budget",
    (BudgetWindow.DAY, BudgetUnit.TOKENS): "daily token budget",
    (BudgetWindow.MONTH, BudgetUnit.USD): "monthly budget",
    (BudgetWindow.MONTH, BudgetUnit.TOKENS): "monthly token budget",
}


async def take_reached(connection: Connection, turn_id: TurnId) -> ReachedBudgets:
    """Return the budgets that the turn has brought to a threshold since it was last asked.

    It counts what the transaction has settled, and must be its last statement: days of usage stay
    locked from here on.
    """
    return [row[0] for row in await connection.fetch(_TAKE, turn_id)]


def notices_of(reached: ReachedBudgets) -> list[NoticeEvent]:
    """Return a notice for each budget of the user's, of the highest threshold that it has reached.

    How much of the installation's budget is left is not theirs to know.
    """
    highest = {
        (details["scope"], details["window"], details["unit"]): details
        for details in sorted(reached, key=lambda details: int(details["threshold"]))
        if details["scope"] != BudgetScope.INSTALLATION
    }
    return [
        NoticeEvent(code=BUDGET_REACHED, message=_sentence(details)) for details in highest.values()
    ]


def _sentence(details: Mapping[str, Any]) -> str:
    owner = _OWNERS[BudgetScope(details["scope"])]
    kind = _KINDS[BudgetWindow(details["window"]), BudgetUnit(details["unit"])]
    used = "All" if details["threshold"] == _ALL else f"{details['threshold']}%"
    resets_at = datetime.fromisoformat(details["resetsAt"])
    return f"{used} of {owner} {kind} is used. It resets at {resets_at:%Y-%m-%d %H:%M} UTC."


class BudgetAlerts:
    """Alerts of budgets, as turns come across them; without `on_alert` the sweep sends them."""

    def __init__(self, database: Database, on_alert: OnAlert = lambda: None) -> None:
        self._database = database
        self._on_alert = on_alert
        # A client that is refused may try again at once, and a crowd is refused at the same time.
        self._stored: TTLCache[tuple[object, ...], bool] = TTLCache(_REMEMBERED, ttl=_LIFETIME_S)

    def report(self, reached: ReachedBudgets) -> list[NoticeEvent]:
        """Start the delivery of the alerts, and return the notices for the turn's user."""
        if reached:
            self._on_alert()
        return notices_of(reached)

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
    ) -> None:
        """Raise the alert that the budget refused a call, once, unless it is known to be used up.

        The key is the turn's where none is given.
        After the transaction that was refused: that one may be rolled back. What can't be stored
        is logged: the refusal itself stands, and the next one tries again.
        """
        count_budget_refusal(refusal)
        budget = (refusal.scope.value, refusal.unit.value, refusal.window.value)
        key = (user_id, api_key_id, turn_id, *budget)
        if key in self._stored:
            return
        self._stored[key] = True
        try:
            async with self._database.statements(SERVICE) as connection:
                raised: int = await connection.fetchval(
                    _REFUSED, user_id, api_key_id, turn_id, *budget
                )
        except Exception:  # noqa: BLE001 -- whatever it is, the user gets the refusal
            self._stored.pop(key, None)
            _log.exception("budget_alert_not_stored", scope=refusal.scope.value)
            return
        if raised:
            self._on_alert()
