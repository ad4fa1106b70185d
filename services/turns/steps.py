"""A step and its ledger row: which execution holds its newest attempt, its result, its cost.

AttemptOvertakenError    another execution holds a newer attempt, or the step is done
TurnStoppedError         the turn has ended or is to be: no more requests are made for it
AttemptsLostError        too many processes died with the step
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import ceil
from time import perf_counter
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import asyncpg
import structlog

from schema.actors import acting_user
from schema.events import StepEvent
from schema.ids import TurnId, UserId, new_id
from schema.result import Err
from schema.turns import CallModelInput, StepStatus
from schema.usage import TokenUsage
from services.database import Connection, Database, DatabaseUnavailableError
from services.metrics import Purpose, count_charge, count_invalid_calls, count_step
from services.models.context_windows import ContextWindows
from services.models.failures import Refusable
from services.models.pricing import Pricing
from services.prompts.fitting import fitted, tokens_in
from services.shielding import DefectError
from services.subscriptions.budget_alerts import ReachedBudgets, read_reached
from services.subscriptions.budgets import Estimate, OverBudgetError, reserved_from
from services.subscriptions.ledger import ChargeKey, ChargeKind, ChargeStatus, Ledger, Spent
from services.turns import step_statements as sql
from services.turns.attempts import AttemptKey, NewAttempt
from services.turns.call_settings import call_settings
from services.turns.ending import Ended
from services.turns.prompt_reading import read_prompt
from services.turns.requested_calls import (
    RequestedCall,
    StoredAnswer,
    ToolRequest,
    invalid_tools,
    store_requests,
    stored_answer,
)
from services.turns.steering import PromptLimits, join_waiting

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_MAX_LOST: Final = 10
"""Attempts of a step that may die with their workers, e.g. in a deployment."""


class AttemptOvertakenError(Exception):
    """This execution does not hold the step's newest attempt; it must stop."""

    def __init__(self) -> None:
        super().__init__("Another execution has taken over this step.")


class TurnStoppedError(Exception):
    """The turn has ended or is to be cancelled, so the model is not called again."""

    def __init__(self) -> None:
        super().__init__("The turn has ended or is to be cancelled.")


class AttemptsLostError(DefectError):
    """Each process that attempted the step died: the step may be why."""

    def __init__(self) -> None:
        super().__init__(exhausted=True)


@dataclass(frozen=True, slots=True)
class Claim:
    """The execution of an activity that is to run the step."""

    run_id: str
    activity_id: str
    activity_attempt: int


class Completed(NamedTuple):
    """The cost of a completed step, the tool calls it requests, and budgets it has reached.

    `ended` is the end of its turn, if that was stored with it.
    """

    cost_usd: Decimal
    tool_calls: tuple[RequestedCall, ...]
    reached: ReachedBudgets = ()
    ended: Ended | None = None


class Abandoned(NamedTuple):
    """What an abandoned attempt was charged, and how many of the step failed at its model.

    `reached` are the budgets that the charge has brought to a threshold.
    """

    failures: int
    usage: TokenUsage
    cost_usd: Decimal
    reached: ReachedBudgets = ()


Begun: TypeAlias = NewAttempt | StoredAnswer

BeginningOfTurn: TypeAlias = Callable[[Callable[[Connection], Awaitable[Begun]]], Awaitable[Begun]]
EndOfTurn: TypeAlias = Callable[
    [Callable[[Connection], Awaitable[Completed]]], Awaitable[tuple[Completed, Ended]]
]
"""Transactions of others that a step begins or ends in."""


class Steps:
    """Stores the steps of turns. Every method is one transaction as the turn's user.

    Units: `budget_tokens` is what a prompt may have before its turn's own steps.
    Errors: DatabaseUnavailableError.
    """

    def __init__(
        self, database: Database, pricing: Pricing, windows: ContextWindows, *, budget_tokens: int
    ) -> None:
        self._database = database
        self._pricing = pricing
        self._windows = windows
        self._budget_tokens = budget_tokens

    async def begin(
        self,
        call: CallModelInput,
        claim: Claim,
        *,
        max_tokens: int,
        refused: Collection[Refusable] = (),
        within: BeginningOfTurn | None = None,
    ) -> Begun:
        """Take over the step and open its ledger row, or return what is already stored.

        It is done within another unit of work, or else in a transaction of its own. The row
        reserves what an answer of `max_tokens`, and of what the turn lets its model think, costs,
        or a shorter one where a budget has less left. Messages that wait to join the turn do, as
        far as they fit its model and budget. `refused` is what the provider is known to refuse.
        Errors: AttemptOvertakenError; TurnStoppedError and OverBudgetError, which leave the
        earlier text.
        """
        within = within or partial(self._in_transaction, call.turn.user_id)
        begin = partial(self._begin, call, claim, max_tokens=max_tokens, refused=refused)
        try:
            return await within(partial(begin, joins=True))
        except OverBudgetError as error:
            if not error.joins:
                raise
        return await within(partial(begin, joins=False))

    async def _in_transaction(
        self, user_id: UserId, work: Callable[[Connection], Awaitable[T]]
    ) -> T:
        async with self._database.statements(acting_user(user_id)) as connection:
            return await work(connection)

    async def _begin(
        self,
        call: CallModelInput,
        claim: Claim,
        connection: Connection,
        *,
        max_tokens: int,
        refused: Collection[Refusable],
        joins: bool,
    ) -> Begun:
        turn = call.turn
        # Before the claim, so that what is reserved is what will be sent.
        prompt = await read_prompt(connection, call)
        if prompt is None:
            raise TurnStoppedError
        limit = int(self._windows.prompt_limit(call.model) / prompt.correction)
        before = prompt
        if joins and prompt.can_be_joined:
            budget = int(self._budget_tokens / prompt.correction)
            limits = PromptLimits(window_tokens=limit, budget_tokens=budget)
            prompt = await join_waiting(connection, call, prompt, limits)
        is_joined = prompt is not before
        material = fitted(prompt.material, limit_tokens=limit)
        estimate = ceil(tokens_in(material) * prompt.correction)
        settings = call_settings(
            prompt.options,
            call.model,
            longest=max_tokens,
            room=self._windows.room_for_answer(call.model, prompt_tokens=estimate),
            refused=refused,
        )
        cost_usd = self._pricing.cost(call.model, TokenUsage(input_tokens=estimate))
        prices = self._pricing.dearest(call.model, input_tokens=estimate)
        at_most = Estimate.of_call(prices, estimate, answer_tokens=settings.max_tokens)
        begun = await connection.fetchrow(
            sql.BEGIN,
            turn.turn_id,
            call.step,
            turn.user_id,
            claim.run_id,
            claim.activity_id,
            claim.activity_attempt,
            call.model,
            new_id(),
            estimate,
            cost_usd,
            *at_most.parameters,
        )
        if begun is None or begun["is_to_stop"]:
            # Temporal may have been unavailable for the request to cancel, and retries.
            raise TurnStoppedError
        reserved = reserved_from(begun)
        if begun["attempt"] is None or isinstance(reserved, Err):
            stored = await stored_answer(connection, turn.turn_id, call.step)
            if stored is not None and not is_joined:
                return stored
            if isinstance(reserved, Err):
                shortest = at_most.shortest(reserved.error.unit)
                raise OverBudgetError(reserved.error, shortest=shortest, joins=is_joined)
            # Nothing has joined then: the transaction is rolled back.
            raise AttemptOvertakenError
        if begun["attempt"] > 1:
            await _lose_older(connection, turn.turn_id, call.step, begun["attempt"])
        replaced: Sequence[asyncpg.Record] = ()
        if any(step.problem is not None for step in material.steps):
            replaced = await connection.fetch(sql.REPLACE_ANSWERS, turn.turn_id, call.step)
        return NewAttempt(
            key=AttemptKey(turn.user_id, turn.turn_id, call.step, begun["attempt"]),
            model=call.model,
            estimated_input=estimate,
            layers=prompt.layers,
            material=material,
            is_cut=material is not prompt.material,
            settings=settings.granted(reserved.value.answer_tokens),
            is_limited=reserved.value.is_limited,
            replaced=tuple(StepEvent(**step) for step in replaced),
        )

    async def checkpoint(
        self, attempt: NewAttempt, *, answer: str, usage: TokenUsage, thinking: str = ""
    ) -> None:
        """Store the text and usage of a running attempt, in case it dies."""
        key = attempt.key
        spent = self._spent(attempt, usage)
        async with self._database.statements(acting_user(key.user_id)) as connection:
            await connection.execute(
                sql.CHECKPOINT, key.turn_id, key.step, key.attempt, *spent, answer, thinking
            )

    async def complete(  # noqa: PLR0913 -- one for each thing that is stored
        self,
        attempt: NewAttempt,
        *,
        answer: str,
        blocks: list[dict[str, Any]],
        stop_reason: str,
        tool_requests: Sequence[ToolRequest],
        usage: TokenUsage,
        prompt_tokens: int = 0,
        estimated: bool = False,
        thinking: str = "",
        problem: str | None = None,
        end: EndOfTurn | None = None,
    ) -> Completed:
        """Store the model's answer, its tool calls and its cost, and with `end` the turn's end.

        Where the turn can't be ended, the answer is stored all the same. `problem` is why the
        answer does not fit the turn's schema.
        Units: `prompt_tokens` is the uncorrected estimate of what was sent, 0 if there is none.
        Errors: AttemptOvertakenError.
        """
        key = attempt.key
        spent = self._spent(attempt, usage)

        async def store(connection: Connection) -> Completed:
            held = await connection.fetchrow(
                sql.COMPLETE,
                key.turn_id,
                key.step,
                key.attempt,
                *spent,
                answer,
                blocks,
                stop_reason,
                estimated,
                prompt_tokens,
                thinking,
                problem,
            )
            if held is None:
                raise AttemptOvertakenError
            calls = await store_requests(
                connection,
                tool_requests,
                attempt.offered,
                turn_id=key.turn_id,
                step=key.step,
                user_id=key.user_id,
            )
            return Completed(spent.cost_usd, calls, await _reached(connection, attempt))

        completed = None if end is None else await _with_end(end, store)
        if completed is None:
            completed = await self._in_transaction(key.user_id, store)
        self._count(attempt, StepStatus.COMPLETED, usage, spent)
        count_invalid_calls(invalid_tools(tool_requests, attempt.offered))
        return completed

    async def abandon(
        self,
        attempt: NewAttempt,
        *,
        answer: str,
        usage: TokenUsage,
        failed: bool,
        estimated: bool,
        thinking: str = "",
    ) -> Abandoned:
        """Store the result of an attempt that failed or was cancelled."""
        key, status = attempt.key, StepStatus.FAILED if failed else StepStatus.CANCELLED
        spent = self._spent(attempt, usage)
        async with self._database.statements(acting_user(key.user_id)) as connection:
            await connection.execute(
                sql.ABANDON, key.turn_id, key.step, key.attempt, answer, status.value, thinking
            )
            charge = ChargeKey(key.turn_id, key.step, ChargeKind.MODEL, "", key.attempt)
            await Ledger(connection).settle(
                charge, spent, status=ChargeStatus(status), estimated=estimated
            )
            failures: int = await connection.fetchval(
                sql.FAILURES, key.turn_id, key.step, attempt.model
            )
            reached = await _reached(connection, attempt)
        self._count(attempt, status, usage, spent)
        return Abandoned(failures, usage, spent.cost_usd, reached)

    def _count(
        self, attempt: NewAttempt, result: StepStatus, usage: TokenUsage, spent: Spent
    ) -> None:
        count_step(attempt.model, result, duration_s=perf_counter() - attempt.begun_at)
        count_charge(
            attempt.model,
            Purpose.ANSWER,
            usage=usage,
            cost_usd=spent.cost_usd,
            saved_usd=self._pricing.saved_by_cache(attempt.model, usage),
        )

    def _spent(self, attempt: NewAttempt, usage: TokenUsage) -> Spent:
        return Spent.of(usage, self._pricing.cost(attempt.model, usage))


async def _with_end(
    end: EndOfTurn, store: Callable[[Connection], Awaitable[Completed]]
) -> Completed | None:
    """Store the last answer and the end of its turn together; None if the turn can't be ended."""
    try:
        completed, ended = await end(store)
    except (AttemptOvertakenError, DatabaseUnavailableError):
        raise
    except Exception:  # noqa: BLE001 -- the workflow has retries and a last resort
        _log.exception("turn_not_ended_with_answer")
        return None
    return completed._replace(ended=ended)


async def _reached(connection: Connection, attempt: NewAttempt) -> ReachedBudgets:
    """Return the budgets to report; those set since the attempt began can wait for the next one."""
    return await read_reached(connection, attempt.key.turn_id) if attempt.is_limited else ()


async def _lose_older(connection: Connection, turn_id: TurnId, step: int, attempt: int) -> None:
    """Settle the attempts whose processes died.

    Errors: AttemptsLostError.
    """
    lost = await connection.fetchval(sql.LOSE_OLDER, turn_id, step, attempt)
    if lost >= _MAX_LOST:
        raise AttemptsLostError
