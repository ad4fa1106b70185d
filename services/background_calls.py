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
_CALLED: Final = """
SELECT count(*) AS calls, count(*) FILTER (WHERE status <> 'settled') AS failed_calls,
       coalesce(sum(cost_usd), 0) AS called_usd
FROM ledger WHERE turn_id = $1 AND kind = $2
"""


class Called(NamedTuple):
    """How often a work has asked its model, how often in vain, and what that cost."""

    calls: int = 0
    failed: int = 0
    cost_usd: Decimal = Decimal(0)


class _Opened(NamedTuple):
    """A call that may be made; `is_last` if none is made after it, should it fail."""

    key: ChargeKey
    is_last: bool


def columns_of_called(kind: ChargeKind) -> str:
    """Return `calls`, `failed_calls` and `called_usd`, columns of a statement about the turn $1."""
    of_turn = f"FROM ledger WHERE turn_id = $1 AND kind = '{kind.value}'"
    return (
        f"(SELECT count(*) {of_turn}) AS calls, "
        f"(SELECT count(*) {of_turn} AND status <> 'settled') AS failed_calls, "
        f"(SELECT coalesce(sum(cost_usd), 0) {of_turn}) AS called_usd"
    )


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
        before: Called | None = None,
    ) -> tuple[R | NotDone, Decimal]:
        """Ask the model, charge the user, and store what was answered; or return why not.

        Returned is the cost of all calls, too. Those `before` are looked up if they are not known.
        `ask` counts what it uses in `usage`, which has an estimate of the prompt before. It
        reserves the longest answer: a shorter one could not be read. What was paid for is stored
        even if this task is cancelled meanwhile.
        Errors: ModelCallError, DefectError, ActorGoneError.
        """
        opened, before_usd = await self._open(
            turn, model, usage.input_tokens, max_tokens, before=before
        )
        if isinstance(opened, NotDone):
            return opened, before_usd
        answer, cost_usd = await self._ask(ask, usage, opened, model=model, turn=turn)
        try:
            return await shielded(until_stored(lambda: store(answer))), before_usd + cost_usd
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
            [called] = await connection.fetch(_CALLED, turn.turn_id, self._kind)
        return outcome_of(result, called["called_usd"])

    def _key(self, turn: TurnReference, attempt: int) -> ChargeKey:
        return ChargeKey(turn.turn_id, 0, self._kind, "", attempt)

    async def _open(
        self,
        turn: TurnReference,
        model: str,
        input_tokens: int,
        max_tokens: int,
        *,
        before: Called | None,
    ) -> tuple[_Opened | NotDone, Decimal]:
        prices = self._pricing.dearest(model, input_tokens=input_tokens)
        estimate = Estimate(
            usd=prices.input * input_tokens,
            tokens=input_tokens,
            usd_per_answer_token=prices.output,
            answer_tokens=max_tokens,
            useful_tokens=max_tokens,
        )
        async with self._database.statements(acting_user(turn.user_id)) as connection:
            if before is None:
                [called] = await connection.fetch(_CALLED, turn.turn_id, self._kind)
                before = Called(*called)
            key = self._key(turn, before.calls + 1)
            if before.calls >= self._attempts or before.failed >= MAX_ATTEMPTS:
                await Ledger(connection).lose_open(key)
                return NotDone.GAVE_UP, before.cost_usd
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
                return NotDone.GAVE_UP, before.cost_usd
        if isinstance(reserved, Err):
            count_budget_refusal(reserved.error)
            return NotDone.NO_BUDGET, before.cost_usd
        is_last = before.calls + 1 >= self._attempts or before.failed + 1 >= MAX_ATTEMPTS
        return _Opened(key, is_last), before.cost_usd

    async def _ask(
        self,
        ask: Callable[[], Awaitable[T]],
        usage: AnswerUsage,
        opened: _Opened,
        *,
        model: str,
        turn: TurnReference,
    ) -> tuple[T, Decimal]:
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
        return answer, await shielded(self._settle(turn, key, model, usage))

    async def _settle(
        self,
        turn: TurnReference,
        key: ChargeKey,
        model: str,
        usage: AnswerUsage,
        *,
        failure: BaseException | None = None,
    ) -> Decimal:
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
        return cost_usd


def outcome_of(result: int | NotDone, cost_usd: Decimal) -> WorkOutcome:
    """Return how a work ended that stored so much, or why it did not."""
    if isinstance(result, NotDone):
        return WorkOutcome(cost_usd=cost_usd, problem=result)
    return WorkOutcome(stored=result, cost_usd=cost_usd)


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
