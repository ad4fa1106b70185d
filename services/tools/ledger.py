"""Owns what tool calls cost, in the ledger: a row for each attempt, opened before it is made.

The row's key is the call's and the attempt's, so that whoever runs the tool and a tool that meters
itself speak of the same row: the later `open` says more exactly what is paid for, and the first
`settle` is the one that counts.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Final

import asyncpg

from schema.ids import new_id
from schema.tables import LedgerRow
from schema.usage import TokenUsage
from services.database import Database
from services.tools.definition import ToolExecution

_NO_TOKENS: Final = TokenUsage()


class ChargeStatus(StrEnum):
    """How an attempt at a paid call ended."""

    SETTLED = "settled"
    CANCELLED = "cancelled"
    FAILED = "failed"


# In all of them $1 is the turn, $2 the step, $3 the tool call and $4 the attempt. Attempts of the
# call that are still open belong to processes that died: what they cost is what was known of them.
_LOSE_OLDER: Final = """
UPDATE ledger SET status = 'lost', settled_at = now()
WHERE turn_id = $1 AND step = $2 AND kind = 'tool' AND tool_call_id = $3 AND attempt < $4
  AND status = 'open'
"""

# Whoever knows the call again by its key does it once, and is paid once: for the newest attempt.
_REPLACE_OLDER: Final = """
UPDATE ledger SET status = CASE status WHEN 'open' THEN 'lost' ELSE status END,
                  settled_at = coalesce(settled_at, now()), cost_usd = 0
WHERE turn_id = $1 AND step = $2 AND kind = 'tool' AND tool_call_id = $3 AND attempt < $4
  AND (status = 'open' OR cost_usd > 0)
"""

_OPEN: Final = """
INSERT INTO ledger AS charge (id, user_id, turn_id, step, attempt, kind, tool_call_id, model,
                              status, estimated, input_tokens, cost_usd)
VALUES ($5, $6, $1, $2, $4, 'tool', $3, $7, 'open', true, $8, $9)
ON CONFLICT (turn_id, step, attempt, kind, tool_call_id) DO UPDATE SET
    model = excluded.model, input_tokens = excluded.input_tokens, cost_usd = excluded.cost_usd
WHERE charge.status = 'open'
"""

_CHECKPOINT: Final = """
UPDATE ledger SET input_tokens = $5, output_tokens = $6, cache_read_tokens = $7,
                  cache_write_tokens = $8, cost_usd = $9
WHERE turn_id = $1 AND step = $2 AND kind = 'tool' AND tool_call_id = $3 AND attempt = $4
  AND status = 'open'
"""

# What an attempt has cost is true even where it was given up for lost meanwhile; not so where
# another one has taken its place.
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

    Outside of a turn nothing is recorded. Every method is one transaction.
    Errors: DatabaseUnavailableError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(
        self,
        execution: ToolExecution,
        *,
        model: str,
        estimate_usd: Decimal,
        input_tokens: int = 0,
        paid_once: bool = False,
    ) -> None:
        """Note what is about to be paid for; `model` is the tool's name where no model is asked.

        With `paid_once` the attempt takes the place of the call's earlier ones.
        Idempotency: opening an attempt again replaces what was noted, unless it is settled.
        """
        if execution.turn_id is None:
            return
        key = _key(execution)
        async with self._database.statements(execution.actor) as connection:
            if execution.attempt > 1:
                await connection.execute(_REPLACE_OLDER if paid_once else _LOSE_OLDER, *key)
            await connection.execute(
                _OPEN,
                *key,
                new_id(),
                execution.actor.user_id,
                model,
                input_tokens,
                estimate_usd,
            )

    async def checkpoint(
        self, execution: ToolExecution, *, usage: TokenUsage, cost_usd: Decimal
    ) -> None:
        """Keep what an attempt under way has used, for the case that it dies."""
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
        """Record what an attempt came to; return its row, or None where none was opened.

        With `paid_once` an attempt that was given up for lost stays so.
        Idempotency: an attempt that is settled stays as it is, and is returned as it is.
        """
        if execution.turn_id is None:
            return None
        key, spent = _key(execution), _spent(usage, cost_usd)
        async with self._database.statements(execution.actor) as connection:
            found = await connection.fetchrow(
                _SETTLE, *key, *spent, status.value, estimated, paid_once
            )
            if found is None:
                found = await connection.fetchrow(_READ, *key)
        return None if found is None else _ledger_row(found)


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
