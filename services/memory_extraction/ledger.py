"""The cost of extractions in the ledger: a row for each attempt, opened before the model is asked.

Its rows have the kind `extraction` and the step 0 of their turn. They are the user's spending, but
not a part of the turn's own cost, which is final before extraction begins.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Final

from schema.actors import acting_user
from schema.ids import new_id
from schema.memory_extraction import NotExtracted
from schema.result import Err
from schema.turns import TurnReference
from schema.usage import TokenUsage
from services.database import Database
from services.metrics import Purpose, count_budget_refusal, count_charge
from services.models.pricing import Pricing
from services.subscriptions.budgets import Estimate, reserve

_KIND: Final = "extraction"

# In all statements $1 is the turn. Attempts that are still open belong to processes that died:
# their cost is what was last recorded.
_LOSE_OPEN: Final = """
UPDATE ledger SET status = 'lost', settled_at = now()
WHERE turn_id = $1 AND kind = 'extraction' AND status = 'open'
"""

# Of two that open at once, one gets no row.
_OPEN: Final = """
INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status, estimated,
                    input_tokens, cost_usd, reserved_usd, reserved_tokens, api_key_id,
                    is_limited)
SELECT $2, $3, $1, 0, count(*) + 1, 'extraction', $4, 'open', true, $5, $6, $8, $9, $10, $11
FROM ledger WHERE turn_id = $1 AND kind = 'extraction'
HAVING count(*) < $7
ON CONFLICT DO NOTHING
RETURNING attempt
"""

# An attempt's cost counts even if the attempt has been marked lost.
_SETTLE: Final = """
UPDATE ledger SET status = $3, estimated = $4, settled_at = now(), input_tokens = $5,
                  output_tokens = $6, cache_read_tokens = $7, cache_write_tokens = $8,
                  cost_usd = $9
WHERE turn_id = $1 AND kind = 'extraction' AND attempt = $2
"""

_COST: Final = """
SELECT coalesce(sum(cost_usd), 0) FROM ledger WHERE turn_id = $1 AND kind = 'extraction'
"""


class ChargeStatus(StrEnum):
    """How an attempt ended."""

    SETTLED = "settled"
    CANCELLED = "cancelled"
    FAILED = "failed"


class ExtractionLedger:
    """Records what attempts at extractions cost. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, pricing: Pricing) -> None:
        self._database = database
        self._pricing = pricing

    async def open(
        self, turn: TurnReference, *, model: str, input_tokens: int, max_tokens: int, most: int
    ) -> int | NotExtracted:
        """Record an attempt before it is made and return its number, or why it must not be.

        It reserves the longest answer: a shorter one could not be read. Units: `input_tokens` is
        an estimate; at most `most` attempts are made.
        """
        prices = self._pricing.dearest(model, input_tokens=input_tokens)
        estimate = Estimate(
            usd=prices.input * input_tokens,
            tokens=input_tokens,
            usd_per_answer_token=prices.output,
            answer_tokens=max_tokens,
            useful_tokens=max_tokens,
        )
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            await connection.execute(_LOSE_OPEN, turn.turn_id)
            reserved = await reserve(
                connection, turn.user_id, estimate, turn_id=turn.turn_id, step=0, kind=_KIND
            )
            if isinstance(reserved, Err):
                count_budget_refusal(reserved.error)
                return NotExtracted.NO_BUDGET
            attempt: int | None = await connection.fetchval(
                _OPEN,
                turn.turn_id,
                new_id(),
                turn.user_id,
                model,
                input_tokens,
                self._pricing.cost(model, TokenUsage(input_tokens=input_tokens)),
                most,
                reserved.value.usd,
                reserved.value.tokens,
                reserved.value.api_key_id,
                reserved.value.is_limited,
            )
        return NotExtracted.GAVE_UP if attempt is None else attempt

    async def settle(
        self,
        turn: TurnReference,
        *,
        attempt: int,
        model: str,
        usage: TokenUsage,
        estimated: bool,
        status: ChargeStatus,
    ) -> None:
        """Record the final cost of an attempt. Idempotency: repeating it is harmless."""
        cost_usd = self._pricing.cost(model, usage)
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            await connection.execute(
                _SETTLE,
                turn.turn_id,
                attempt,
                status.value,
                estimated,
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                cost_usd,
            )
        saved_usd = self._pricing.saved_by_cache(model, usage)
        count_charge(model, Purpose.MEMORIES, usage=usage, cost_usd=cost_usd, saved_usd=saved_usd)

    async def lose_open(self, turn: TurnReference) -> None:
        """Settle attempts whose process died, by what was last recorded."""
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            await connection.execute(_LOSE_OPEN, turn.turn_id)

    async def cost(self, turn: TurnReference) -> Decimal:
        """Return what all attempts of a turn's extraction cost."""
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            cost_usd: Decimal = await connection.fetchval(_COST, turn.turn_id)
        return cost_usd
