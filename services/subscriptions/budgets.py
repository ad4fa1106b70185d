"""Reservations: what a paid call may cost at most is set aside before it is made.

The ledger's row of a call is its reservation, while it is open
(docs/decisions/0043-the-ledger-row-is-the-reservation.md). `everturn_reserve`, a function in the
database, decides under a lock of the user's what fits the limits of that moment: the user's own or
their plan's, their API key's, the installation's. Statements that open rows call it themselves, in
one round trip; `reserve` is for those that have the time.

    OverBudgetError    what a step may cost does not fit a budget
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, Self
from uuid import UUID

from schema.budgets import BudgetExceeded, BudgetScope, BudgetUnit, BudgetWindow
from schema.ids import TurnId, UserId
from schema.result import Err, Ok, Result
from services.database import Connection
from services.models.pricing import TokenPrices

USEFUL_ANSWER_TOKENS: Final = 256
"""An answer that is cut off before is not worth its prompt: the call is refused instead."""
_SHORT_PROMPT_TOKENS: Final = 1_000

_RESERVE: Final = """
SELECT reserved.*, api_key_id
FROM (SELECT (SELECT api_key_id FROM turns WHERE id = $2) AS api_key_id) AS turn
CROSS JOIN LATERAL everturn_reserve(
    $1, api_key_id, $2, $3, $4, '', NULL, false, $5, $6, $7, $8, $9) AS reserved
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call may cost at most: a fixed part, e.g. its prompt, and each token of its answer.

    An answer may be shortened from `answer_tokens` down to `useful_tokens`, if that is less.
    """

    usd: Decimal
    tokens: int = 0
    usd_per_answer_token: Decimal = Decimal(0)
    answer_tokens: int = 0
    useful_tokens: int = USEFUL_ANSWER_TOKENS

    @classmethod
    def of_call(cls, prices: TokenPrices, prompt_tokens: int, *, answer_tokens: int) -> Self:
        """Return what a call of a model may cost at most."""
        return cls(
            usd=prices.input * prompt_tokens,
            tokens=prompt_tokens,
            usd_per_answer_token=prices.output,
            answer_tokens=answer_tokens,
        )

    @property
    def parameters(self) -> tuple[object, ...]:
        """The last five parameters of `everturn_reserve`."""
        return (
            *(self.usd, self.tokens, self.usd_per_answer_token),
            *(self.answer_tokens, self.useful_tokens),
        )

    def shortest(self, unit: BudgetUnit) -> Decimal:
        """Return what a short call of this kind costs: hardly any that is useful costs less.

        It has a prompt of 1,000 tokens, or this one if it is shorter, and the shortest answer.
        """
        prompt = min(self.tokens, _SHORT_PROMPT_TOKENS)
        answer = min(self.answer_tokens, self.useful_tokens)
        if unit is BudgetUnit.TOKENS:
            return Decimal(prompt + answer)
        share = Decimal(prompt) / max(self.tokens, 1)
        return self.usd * share + self.usd_per_answer_token * answer


class OverBudgetError(Exception):
    """What the attempt may cost does not fit what a budget has left.

    `shortest` is what a short call would cost, in the unit of the budget; `joins` says that
    messages were to join the turn with the attempt.
    """

    def __init__(self, refusal: BudgetExceeded, *, shortest: Decimal, joins: bool = False) -> None:
        super().__init__("A budget is used up.")
        self.refusal = refusal
        self.shortest = shortest
        self.joins = joins


@dataclass(frozen=True, slots=True)
class Reserved:
    """What was set aside: the ledger's columns, and the tokens that the answer may have.

    `is_limited` is false where no budget applies.
    """

    usd: Decimal
    tokens: int
    answer_tokens: int
    is_limited: bool = False
    api_key_id: UUID | None = None


async def reserve(
    connection: Connection,
    user_id: UserId,
    estimate: Estimate,
    *,
    turn_id: TurnId,
    step: int,
    kind: str,
) -> Result[Reserved, BudgetExceeded]:
    """Return what the call may cost; its row has to be opened in the same transaction.

    Until that ends, no other call of the user is decided. Earlier attempts of the same call that
    are still open count with what they have cost so far: the caller marks them lost.
    """
    found = await connection.fetch(_RESERVE, user_id, turn_id, step, kind, *estimate.parameters)
    (row,) = found
    reserved = reserved_from(row)
    if isinstance(reserved, Ok):
        return Ok(replace(reserved.value, api_key_id=row["api_key_id"]))
    return reserved


def reserved_from(row: Any) -> Result[Reserved, BudgetExceeded]:  # noqa: ANN401 -- a driver's row
    """Return the decision of `everturn_reserve` by the row of its columns."""
    if row["granted"] is None:
        return Err(
            BudgetExceeded(
                scope=BudgetScope(row["scope"]),
                unit=BudgetUnit(row["unit"]),
                window=BudgetWindow(row["period"]),
                resets_at=row["resets_at"],
            )
        )
    return Ok(Reserved(row["usd"], row["tokens"], row["granted"], row["is_limited"]))
