"""Owns how many searches a user has left in a period, by the ledger.

A search is admitted under a lock of its user, and its row says so from then on by its model. So
of searches that are asked for at once exactly those are admitted that there is room for: rows that
wait for their turn are not counted, and nobody counts between another's counting and its mark.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from schema.ids import UserId, new_id
from schema.subscriptions import Period
from schema.tables.columns import utc_now
from services.database import Connection, Database
from services.database.connections import lock
from services.subscriptions.periods import period_at
from services.subscriptions.service import read_terms
from services.subscriptions.usage import WEB_SEARCH_MODEL
from services.tools.definition import ToolExecution
from services.tools.ledger import ChargeStatus, ToolLedger

# A call is one search, however many attempts it takes; those that failed found nothing.
_COUNT: Final = """
SELECT count(DISTINCT (turn_id, step, tool_call_id)) FROM ledger
WHERE user_id = $1 AND created_at >= $2 AND created_at < $3
  AND kind = 'tool' AND model = $4 AND status <> 'failed'
  AND (turn_id, step, tool_call_id) <> ($5, $6, $7)
"""

# The row is there unless the tool is free, by the settings or by decision of an administrator.
_ADMIT: Final = """
INSERT INTO ledger AS charge (id, user_id, turn_id, step, attempt, kind, tool_call_id, model,
                              status, estimated, cost_usd)
VALUES ($1, $2, $3, $4, $5, 'tool', $6, $7, 'open', true, 0)
ON CONFLICT (turn_id, step, attempt, kind, tool_call_id) DO UPDATE SET model = excluded.model
WHERE charge.status = 'open'
RETURNING xmax = 0 AS is_new
"""


@dataclass(frozen=True, slots=True)
class Admission:
    """A search that may be made; `is_free` is one whose row nobody else settles."""

    is_free: bool


@dataclass(frozen=True, slots=True)
class UsedUp:
    """A period whose searches have all been made."""

    limit: int
    until: datetime


class SearchQuota:
    """Admits searches. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, ledger: ToolLedger) -> None:
        self._database = database
        self._ledger = ledger

    async def admit(self, execution: ToolExecution) -> Admission | UsedUp:
        """Take one of the user's searches, or say that there is none left.

        Outside of a turn, where an administrator tries the tool, nothing is counted.
        Idempotency: the attempts of a call take one.
        """
        if execution.turn_id is None:
            return Admission(is_free=False)
        user_id = execution.actor.user_id
        async with self._database.transaction(execution.actor) as session:
            terms = await read_terms(session, user_id)
        limit = terms.entitlements.max_web_searches
        period = period_at(utc_now(), anchor=terms.anchor)
        async with self._database.statements(execution.actor) as connection:
            if limit is not None:
                await lock(connection, "web searches", of=user_id)
                if await _made(connection, user_id, period, execution) >= limit:
                    return UsedUp(limit, period.end)
            is_new = await connection.fetchval(
                _ADMIT,
                new_id(),
                user_id,
                *_attempt(execution),
                execution.tool_call_id,
                WEB_SEARCH_MODEL,
            )
        return Admission(is_free=bool(is_new))

    async def settle(
        self, admission: Admission, execution: ToolExecution, status: ChargeStatus
    ) -> None:
        """Say how a search ended, where nobody else does."""
        if admission.is_free:
            await self._ledger.settle(
                execution, cost_usd=Decimal(0), status=status, estimated=False
            )


async def _made(
    connection: Connection, user_id: UserId, period: Period, execution: ToolExecution
) -> int:
    """Count the other searches of a period."""
    call = (execution.turn_id, execution.step, execution.tool_call_id)
    return int(
        await connection.fetchval(
            _COUNT, user_id, period.start, period.end, WEB_SEARCH_MODEL, *call
        )
    )


def _attempt(execution: ToolExecution) -> tuple[object, ...]:
    return (execution.turn_id, execution.step, execution.attempt)
