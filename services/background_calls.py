"""Calls of models behind a turn: reserved, asked, charged and stored, whatever happens to them.

A work has at most three attempts that fail, those included whose process died. They are the user's
spending, but not a part of the turn's own cost, which is final before they begin.

ModelCallError    the provider failed; `exhausted` once retrying is pointless
DefectError       something of ours failed after the model was asked; `exhausted` likewise
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from schema.actors import acting_user
from schema.after_turn import NotDone, WorkOutcome
from schema.result import Err
from schema.turns import TurnReference
from schema.usage import TokenUsage
from services.database import ActorGoneError, Database
from services.metrics import Purpose, count_budget_refusal, count_charge
from services.models.failures import ModelCallError, broken_stream, runaway
from services.models.gateway import AnswerEnded, ModelGateway, ModelRequest
from services.models.pricing import Pricing
from services.prompts.answer_usage import AnswerUsage
from services.shielding import DefectError, shielded, until_stored
from services.subscriptions.budgets import Estimate
from services.subscriptions.ledger import (
    AttemptTakenError,
    ChargeKey,
    ChargeKind,
    ChargeStatus,
    Ledger,
    Spent,
)

T = TypeVar("T")
R = TypeVar("R")

MAX_ATTEMPTS: Final = 3
"""How often a work asks its model in vain at most, those attempts included whose process died."""

ANSWER_TIMEOUT: Final = timedelta(minutes=2)

_PURPOSES: Final = {
    ChargeKind.EXTRACTION: Purpose.MEMORIES,
    ChargeKind.TITLE: Purpose.TITLE,
    ChargeKind.COMPACTION: Purpose.COMPACTION,
}
_ATTEMPTS: Final = """
SELECT count(*) AS made, count(*) FILTER (WHERE status <> 'settled') AS failed
FROM ledger WHERE turn_id = $1 AND kind = $2
"""
_COST: Final = """
SELECT coalesce(sum(cost_usd), 0) FROM ledger WHERE turn_id = $1 AND kind = $2
"""


class _Opened(NamedTuple):
    """A call that may be made; `is_last` if none is made after it, should it fail."""

    key: ChargeKey
    is_last: bool


class BackgroundCalls:
    """Pays for the calls of one kind of work, of which a turn has at most `attempts`.

    Errors: DatabaseUnavailableError.
    """

    def __init__(
        self,
        database: Database,
        pricing: Pricing,
        kind: ChargeKind,
        *,
        attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self._database = database
        self._pricing = pricing
        self._kind = kind
        self._attempts = attempts

    async def run(
        self,
        turn: TurnReference,
        *,
        model: str,
        usage: AnswerUsage,
        max_tokens: int,
        ask: Callable[[], Awaitable[T]],
        store: Callable[[T], Awaitable[R]],
    ) -> R | NotDone:
        """Ask the model, charge the user, and store what was answered; or return why not.

        `ask` counts what it uses in `usage`, which has an estimate of the prompt before. It
        reserves the longest answer: a shorter one could not be read. What was paid for is stored
        even if this task is cancelled meanwhile.
        Errors: ModelCallError, DefectError, ActorGoneError.
        """
        opened = await self._open(turn, model, usage.input_tokens, max_tokens)
        if isinstance(opened, NotDone):
            return opened
        answer = await self._ask(ask, usage, opened, model=model, turn=turn)
        try:
            return await shielded(until_stored(lambda: store(answer)))
        except ActorGoneError:
            raise
        except Exception as error:
            raise DefectError(exhausted=opened.is_last) from error

    async def give_up(self, turn: TurnReference) -> WorkOutcome:
        """Settle attempts whose process died, by what was last recorded."""
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            await Ledger(connection).lose_open(self._key(turn, self._attempts + 1))
        return await self.outcome(turn, NotDone.GAVE_UP)

    async def outcome(self, turn: TurnReference, result: int | NotDone) -> WorkOutcome:
        """Return how a turn's work ended, with the cost of all attempts at its call."""
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            cost_usd: Decimal = await connection.fetchval(_COST, turn.turn_id, self._kind)
        if isinstance(result, NotDone):
            return WorkOutcome(cost_usd=cost_usd, problem=result)
        return WorkOutcome(stored=result, cost_usd=cost_usd)

    def _key(self, turn: TurnReference, attempt: int) -> ChargeKey:
        return ChargeKey(turn.turn_id, 0, self._kind, "", attempt)

    async def _open(
        self, turn: TurnReference, model: str, input_tokens: int, max_tokens: int
    ) -> _Opened | NotDone:
        prices = self._pricing.dearest(model, input_tokens=input_tokens)
        estimate = Estimate(
            usd=prices.input * input_tokens,
            tokens=input_tokens,
            usd_per_answer_token=prices.output,
            answer_tokens=max_tokens,
            useful_tokens=max_tokens,
        )
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            before = await connection.fetchrow(_ATTEMPTS, turn.turn_id, self._kind)
            made, failed = before or (0, 0)
            key = self._key(turn, made + 1)
            if made >= self._attempts or failed >= MAX_ATTEMPTS:
                await Ledger(connection).lose_open(key)
                return NotDone.GAVE_UP
            try:
                reserved = await Ledger(connection).open(
                    key,
                    turn.user_id,
                    model=model,
                    estimate_usd=self._pricing.cost(model, TokenUsage(input_tokens=input_tokens)),
                    at_most=estimate,
                    input_tokens=input_tokens,
                )
            except AttemptTakenError:
                return NotDone.GAVE_UP
        if isinstance(reserved, Err):
            count_budget_refusal(reserved.error)
            return NotDone.NO_BUDGET
        is_last = made + 1 >= self._attempts or failed + 1 >= MAX_ATTEMPTS
        return _Opened(key, is_last)

    async def _ask(
        self,
        ask: Callable[[], Awaitable[T]],
        usage: AnswerUsage,
        opened: _Opened,
        *,
        model: str,
        turn: TurnReference,
    ) -> T:
        key, is_last = opened
        try:
            answer = await ask()
        except BaseException as error:
            await shielded(self._settle(turn, key, model, usage, failure=error))
            if isinstance(error, ModelCallError):
                error.exhausted = is_last or not error.retryable
                raise
            if isinstance(error, Exception):
                raise DefectError(exhausted=is_last) from error
            raise
        await shielded(self._settle(turn, key, model, usage))
        return answer

    async def _settle(
        self,
        turn: TurnReference,
        key: ChargeKey,
        model: str,
        usage: AnswerUsage,
        *,
        failure: BaseException | None = None,
    ) -> None:
        used, estimated = usage.used(failure)
        cost_usd = self._pricing.cost(model, used)

        async def settle() -> None:
            async with self._database.statements(acting_user(turn.user_id)) as connection:
                await Ledger(connection).settle(
                    key,
                    Spent.of(used, cost_usd),
                    status=ChargeStatus.after(failure),
                    estimated=estimated,
                )

        await until_stored(settle)
        saved_usd = self._pricing.saved_by_cache(model, used)
        purpose = _PURPOSES[self._kind]
        count_charge(model, purpose, usage=used, cost_usd=cost_usd, saved_usd=saved_usd)


async def answer_of(
    gateway: ModelGateway,
    request: ModelRequest,
    usage: AnswerUsage,
    *,
    within: timedelta = ANSWER_TIMEOUT,
) -> AnswerEnded:
    """Return the model's whole answer; `usage` counts it, also where that fails or takes too long.

    Errors: ModelCallError.
    """
    try:
        async with (
            asyncio.timeout(within.total_seconds()),
            aclosing(gateway.stream(request)) as events,
        ):
            async for event in events:
                usage.count(event)
                if isinstance(event, AnswerEnded):
                    return event
    except TimeoutError:
        raise runaway() from None
    raise broken_stream()
