"""The ledger: a row for each attempt at a paid call, opened before the call and closed after it.

The open row is also the reservation of the call
(docs/decisions/0043-the-ledger-row-is-the-reservation.md). This is the only place that says how
rows are opened and closed. A step of a turn does both in the statements that claim and store the
step (`services/turns/step_statements.py`), which are built from the parts below; every other call
uses `Ledger`.

AttemptTakenError    another process has made the same attempt
"""

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple

import asyncpg

from schema.budgets import BudgetExceeded
from schema.ids import TurnId, UserId, new_id
from schema.result import Ok, Result
from schema.usage import TokenUsage
from services.database import Connection
from services.subscriptions.budgets import Estimate, Reserved, reserved_from


class ChargeKind(StrEnum):
    """What a call was paid for."""

    MODEL = "model"
    TOOL = "tool"
    EXTRACTION = "extraction"
    TITLE = "title"
    COMPACTION = "compaction"


BACKGROUND: Final = (ChargeKind.EXTRACTION, ChargeKind.TITLE, ChargeKind.COMPACTION)
"""Calls behind a turn. They are their user's spending, and no part of the turn's own cost."""


class ChargeStatus(StrEnum):
    """How an attempt at a paid call ended."""

    SETTLED = "settled"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @classmethod
    def after(cls, failure: BaseException | None) -> "ChargeStatus":
        """Return the status of an attempt that ended with `failure`, if with any."""
        if failure is None:
            return cls.SETTLED
        return cls.CANCELLED if isinstance(failure, asyncio.CancelledError) else cls.FAILED


class ChargeKey(NamedTuple):
    """The key of a row; calls in the background have the step 0, and only tool calls an id."""

    turn_id: TurnId
    step: int
    kind: ChargeKind
    tool_call_id: str
    attempt: int


class Spent(NamedTuple):
    """The ledger's columns of tokens and cost, in the order of the statements."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: Decimal

    @classmethod
    def of(cls, usage: TokenUsage, cost_usd: Decimal) -> "Spent":
        """Return the columns of a usage and its cost."""
        return cls(
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            cost_usd,
        )


class AttemptTakenError(Exception):
    """Another process has made the same attempt at a call in the background."""

    def __init__(self) -> None:
        super().__init__("Another process has made this attempt.")


OPENED: Final = """ledger AS charge
        (id, user_id, turn_id, step, attempt, kind, tool_call_id, model, status, estimated,
         input_tokens, cost_usd, reserved_usd, reserved_tokens, api_key_id, is_limited)"""
"""What is inserted where a row is opened."""


def spent(first: int) -> str:
    """Return the assignments of `Spent`, whose parameters begin with the number `first`."""
    columns = (f"{column} = ${first + place}" for place, column in enumerate(Spent._fields))
    return ", ".join(columns)


def quoted(kinds: Iterable[ChargeKind]) -> str:
    """Return kinds as a list in SQL."""
    return ", ".join(f"'{kind.value}'" for kind in kinds)


# $1 is the turn. Its own cost is without that of calls behind it.
_IS_OF_TURN: Final = f"turn_id = $1 AND kind NOT IN ({quoted(BACKGROUND)})"

# Sums are cut where the columns of turns end.
SPENT_IN_TURN: Final = f"""
    SELECT least(coalesce(sum(input_tokens), 0), 9e18)::bigint AS spent_input,
           least(coalesce(sum(output_tokens), 0), 9e18)::bigint AS spent_output,
           least(coalesce(sum(cache_read_tokens), 0), 9e18)::bigint AS spent_cache_read,
           least(coalesce(sum(cache_write_tokens), 0), 9e18)::bigint AS spent_cache_write,
           least(coalesce(sum(cost_usd), 0), 9999999999) AS spent_usd,
           coalesce(bool_or(status = 'open'), false) AS some_open,
           count(*) FILTER (WHERE kind = 'model') AS model_attempts
    FROM ledger WHERE {_IS_OF_TURN}
"""  # noqa: S608 -- parts of our own
LOSE_OPEN_IN_TURN: Final = f"""
UPDATE ledger SET status = 'lost', settled_at = now() WHERE {_IS_OF_TURN} AND status = 'open'
"""  # noqa: S608 -- parts of our own

# In all statements below $1 to $5 are the key.
_KEY: Final = "turn_id = $1 AND step = $2 AND kind = $3 AND tool_call_id = $4"

# A tool that meters itself opens the row again, and is more exact about what is paid for. Of two
# processes that begin the same attempt in the background, one gets no row.
_OPEN: Final = f"""
WITH turn AS (
    SELECT (SELECT api_key_id FROM turns WHERE id = $1) AS api_key_id
), room AS MATERIALIZED (
    SELECT reserved.* FROM turn CROSS JOIN LATERAL everturn_reserve(
        $7, api_key_id, $1, $2, $3, $4, $5, $11, $12, $13, $14, $15, $16) AS reserved
), opened AS (
    INSERT INTO {OPENED}
    SELECT $6, $7, $1, $2, $5, $3, $4, $8, 'open', true, $9, $10, usd, tokens, api_key_id,
           is_limited
    FROM room, turn WHERE granted IS NOT NULL
    ON CONFLICT (turn_id, step, attempt, kind, tool_call_id) DO UPDATE SET
        model = excluded.model, input_tokens = excluded.input_tokens,
        cost_usd = excluded.cost_usd, reserved_usd = excluded.reserved_usd,
        reserved_tokens = excluded.reserved_tokens
    WHERE charge.status = 'open' AND charge.kind = 'tool'
    RETURNING attempt
)
SELECT room.*, EXISTS (SELECT FROM opened) AS is_open FROM room
"""  # noqa: S608 -- parts of our own

# Older attempts that are still open belong to processes that died: their cost is what was last
# recorded.
_LOSE_OLDER: Final = f"""
UPDATE ledger SET status = 'lost', settled_at = now()
WHERE {_KEY} AND attempt < $5 AND status = 'open'
"""  # noqa: S608 -- parts of our own

# A provider that recognises the call by its key runs and bills it once: for the newest attempt.
_REPLACE_OLDER: Final = f"""
UPDATE ledger SET status = CASE status WHEN 'open' THEN 'lost' ELSE status END,
                  settled_at = coalesce(settled_at, now()), cost_usd = 0
WHERE {_KEY} AND attempt < $5 AND (status = 'open' OR cost_usd > 0)
"""  # noqa: S608 -- parts of our own

_CHECKPOINT: Final = f"""
UPDATE ledger SET {spent(6)} WHERE {_KEY} AND attempt = $5 AND status = 'open'
"""  # noqa: S608 -- parts of our own

# An attempt's cost counts even if the attempt has been marked lost, but not if another one has
# taken its place.
_SETTLE: Final = f"""
UPDATE ledger SET status = $11, estimated = $12, settled_at = now(), {spent(6)}
WHERE {_KEY} AND attempt = $5 AND (status = 'open' OR status = 'lost' AND NOT $13)
RETURNING *
"""  # noqa: S608 -- parts of our own

_READ: Final = f"SELECT * FROM ledger WHERE {_KEY} AND attempt = $5"  # noqa: S608 -- likewise


class Ledger:
    """Writes rows of the ledger in the transaction of a connection, as the turn's user."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def open(
        self,
        key: ChargeKey,
        user_id: UserId,
        *,
        model: str,
        estimate_usd: Decimal,
        at_most: Estimate,
        input_tokens: int = 0,
        paid_once: bool = False,
    ) -> Result[Reserved, BudgetExceeded]:
        """Record an attempt before it is made; return what it may cost.

        Where that does not fit a budget it must not be made, and no row is opened. With
        `paid_once` the attempt replaces the call's earlier ones.
        Errors: AttemptTakenError, but for calls of tools.
        """
        # First, because it takes the locks of budgets, and other rows only after them.
        (row,) = await self._connection.fetch(
            _OPEN,
            *key,
            new_id(),
            user_id,
            model,
            input_tokens,
            estimate_usd,
            paid_once,
            *at_most.parameters,
        )
        if key.attempt > 1:
            await self._connection.execute(_REPLACE_OLDER if paid_once else _LOSE_OLDER, *key)
        reserved = reserved_from(row)
        if isinstance(reserved, Ok) and not row["is_open"] and key.kind is not ChargeKind.TOOL:
            raise AttemptTakenError
        return reserved

    async def lose_open(self, key: ChargeKey) -> None:
        """Settle the attempts before this one whose processes died, by what was last recorded."""
        await self._connection.execute(_LOSE_OLDER, *key)

    async def checkpoint(self, key: ChargeKey, spent: Spent) -> None:
        """Record what a running attempt has used so far, in case the process dies."""
        await self._connection.execute(_CHECKPOINT, *key, *spent)

    async def settle(
        self,
        key: ChargeKey,
        spent: Spent,
        *,
        status: ChargeStatus,
        estimated: bool,
        paid_once: bool = False,
    ) -> asyncpg.Record | None:
        """Record the final cost of an attempt; return its row, or None if there is none to settle.

        With `paid_once` an attempt marked lost stays lost.
        Idempotency: a settled attempt stays as it is.
        """
        row: asyncpg.Record | None = await self._connection.fetchrow(
            _SETTLE, *key, *spent, status.value, estimated, paid_once
        )
        return row

    async def read(self, key: ChargeKey) -> asyncpg.Record | None:
        """Return the row of an attempt."""
        row: asyncpg.Record | None = await self._connection.fetchrow(_READ, *key)
        return row
