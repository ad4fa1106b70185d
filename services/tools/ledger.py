"""The costs of tool calls in the ledger: a row for each attempt, opened before it is made.

The row's key is that of the call and the attempt, so that the code that runs a tool and a tool that
meters itself use the same row: the later `open` is more exact about what is paid for, and the first
`settle` counts.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Final

import asyncpg

from schema.budgets import BudgetExceeded
from schema.ids import new_id
from schema.result import Err, Ok, Result
from schema.tables import LedgerRow
from schema.usage import TokenUsage
from services.alerts import OnAlert
from services.database import Database
from services.metrics import Purpose, count_charge
from services.subscriptions.budget_alerts import BudgetAlerts
from services.subscriptions.budgets import Estimate, Reserved, reserved_from
from services.tools.definition import ToolExecution

_NO_TOKENS: Final = TokenUsage()


class ChargeStatus(StrEnum):
    """How an attempt at a paid call ended."""

    SETTLED = "settled"
    CANCELLED = "cancelled"
    FAILED = "failed"


# In all statements $1 is the turn, $2 the step, $3 the tool call and $4 the attempt. Older attempts
# that are still open belong to processes that died: their cost is what was last recorded.
_LOSE_OLDER: Final = """
UPDATE ledger SET status = 'lost', settled_at = now()
WHERE turn_id = $1 AND step = $2 AND kind = 'tool' AND tool_call_id = $3 AND attempt < $4
  AND status = 'open'
"""

# A provider that recognises the call by its key runs and bills it once: for the newest attempt.
_REPLACE_OLDER: Final = """
UPDATE ledger SET status = CASE status WHEN 'open' THEN 'lost' ELSE status END,
                  settled_at = coalesce(settled_at, now()), cost_usd = 0
WHERE turn_id = $1 AND step = $2 AND kind = 'tool' AND tool_call_id = $3 AND attempt < $4
  AND (status = 'open' OR cost_usd > 0)
"""

_OPEN: Final = """
WITH turn AS (
    SELECT (SELECT api_key_id FROM turns WHERE id = $1) AS api_key_id
), room AS MATERIALIZED (
    SELECT reserved.* FROM turn CROSS JOIN LATERAL everturn_reserve(
        $6, api_key_id, $1, $2, 'tool', $3, $4, $10, $11, $12, $13, $14, $15) AS reserved
), opened AS (
    INSERT INTO ledger AS charge (id, user_id, turn_id, step, attempt, kind, tool_call_id, model,
                                  status, estimated, input_tokens, cost_usd, reserved_usd,
                                  reserved_tokens, api_key_id, is_limited)
    SELECT $5, $6, $1, $2, $4, 'tool', $3, $7, 'open', true, $8, $9, usd, tokens, api_key_id,
           is_limited
    FROM room, turn WHERE granted IS NOT NULL
    ON CONFLICT (turn_id, step, attempt, kind, tool_call_id) DO UPDATE SET
        model = excluded.model, input_tokens = excluded.input_tokens,
        cost_usd = excluded.cost_usd, reserved_usd = excluded.reserved_usd,
        reserved_tokens = excluded.reserved_tokens
    WHERE charge.status = 'open'
)
SELECT * FROM room
"""

_CHECKPOINT: Final = """
UPDATE ledger SET input_tokens = $5, output_tokens = $6, cache_read_tokens = $7,
                  cache_write_tokens = $8, cost_usd = $9
WHERE turn_id = $1 AND step = $2 AND kind = 'tool' AND tool_call_id = $3 AND attempt = $4
  AND status = 'open'
"""

# An attempt's cost counts even if the attempt has been marked lost, but not if another one has
# taken its place.
_SETTLE: Final = """
UPDATE ledger SET status = $10, estimated = $11, settled_at = now(), input_tokens = $5,
                  output_tokens = $6, cache_read_tokens = $7, cache_write_tokens = $8,
                  cost_usd = $9
WHERE turn_id = $1 AND step = $2 AND kind = 'tool' AND tool_call_id = $3 AND attempt = $4
  AND (status = 'open' OR status = 'lost' AND NOT $12)
RETURNING *
"""

_READ: Final = """
SELECT * FROM ledger
WHERE turn_id = $1 AND step = $2 AND kind = 'tool' AND tool_call_id = $3 AND attempt = $4
"""


class ToolLedger:
    """Records what attempts at tool calls cost, as the call's own user.

    Outside a turn nothing is recorded. Every method is one transaction.
    Errors: DatabaseUnavailableError.
    """

    def __init__(self, database: Database, on_alert: OnAlert = lambda: None) -> None:
        self._database = database
        self._budgets = BudgetAlerts(database, on_alert)

    async def open(
        self,
        execution: ToolExecution,
        *,
        model: str,
        estimate_usd: Decimal,
        input_tokens: int = 0,
        at_most: Estimate | None = None,
        paid_once: bool = False,
    ) -> Result[Reserved, BudgetExceeded]:
        """Record an attempt before it is made; `model` is the tool's name if no model is called.

        It reserves what it may cost `at_most`, by default the estimate. Where that does not fit a
        budget it must not be made, and nothing is recorded. With `paid_once` the attempt replaces
        the call's earlier ones.
        Idempotency: opening an attempt again replaces its row, unless it is settled.
        """
        at_most = at_most or Estimate(estimate_usd)
        if execution.turn_id is None:
            return Ok(Reserved(at_most.usd, at_most.tokens, at_most.answer_tokens))
        key = _key(execution)
        async with self._database.statements(execution.actor) as connection:
            # First, because it takes the locks of budgets, and other rows only after them.
            row = await connection.fetchrow(
                _OPEN,
                *key,
                new_id(),
                execution.actor.user_id,
                model,
                input_tokens,
                estimate_usd,
                paid_once,
                *at_most.parameters,
            )
            if execution.attempt > 1:
                await connection.execute(_REPLACE_OLDER if paid_once else _LOSE_OLDER, *key)
        reserved = reserved_from(row)
        if isinstance(reserved, Err):
            user_id, turn_id = execution.actor.user_id, execution.turn_id
            await self._budgets.refused(user_id, reserved.error, turn_id=turn_id)
        return reserved

    async def checkpoint(
        self, execution: ToolExecution, *, usage: TokenUsage, cost_usd: Decimal
    ) -> None:
        """Record what a running attempt has used so far, in case the process dies."""
        if execution.turn_id is None:
            return
        async with self._database.statements(execution.actor) as connection:
            await connection.execute(_CHECKPOINT, *_key(execution), *_spent(usage, cost_usd))

    async def settle(
        self,
        execution: ToolExecution,
        *,
        cost_usd: Decimal,
        status: ChargeStatus,
        estimated: bool,
        usage: TokenUsage = _NO_TOKENS,
        paid_once: bool = False,
    ) -> LedgerRow | None:
        """Record the final cost of an attempt; return its row, or None if none was opened.

        With `paid_once` an attempt marked lost stays lost.
        Idempotency: a settled attempt is returned unchanged.
        """
        if execution.turn_id is None:
            return None
        key, spent = _key(execution), _spent(usage, cost_usd)
        async with self._database.statements(execution.actor) as connection:
            found = await connection.fetchrow(
                _SETTLE, *key, *spent, status.value, estimated, paid_once
            )
            settled = found
            if found is None:
                found = await connection.fetchrow(_READ, *key)
        if settled is not None:
            count_charge(settled["model"], Purpose.TOOL, usage=usage, cost_usd=cost_usd)
        return None if found is None else _ledger_row(found)


def over_budget(refusal: BudgetExceeded) -> str:
    """Return what the model gets instead of a call that does not fit a budget."""
    resets_at = refusal.resets_at.strftime("%d %B %Y, %H:%M UTC")
    return (
        "This call was not made: it costs more than the budget has left. The budget resets on "
        f"{resets_at}. Answer without this call, and say so."
    )


def _key(execution: ToolExecution) -> tuple[object, ...]:
    return (execution.turn_id, execution.step, execution.tool_call_id, execution.attempt)


def _spent(usage: TokenUsage, cost_usd: Decimal) -> tuple[object, ...]:
    """Return tokens and cost in the order of the statements."""
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        cost_usd,
    )


def _ledger_row(found: asyncpg.Record) -> LedgerRow:
    return LedgerRow(**dict(found))
