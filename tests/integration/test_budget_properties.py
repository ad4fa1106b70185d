"""What holds of budgets whatever happens: hundreds of model calls at once that fail, are cancelled,
break off or lose their worker, for users who can't afford them all.
"""

import asyncio
import random
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Any, Final
from uuid import UUID

import pytest

from schema.actors import acting_user
from schema.budgets import BudgetExceeded, BudgetScope
from schema.ids import ChatId, TurnId, UserId, new_id
from schema.turns import PAUSED, CallModelInput, FinishTurnInput, TurnReference, TurnStatus
from services.models.failures import ModelCallError
from services.prompts.tokens import written_tokens
from services.shielding import until_stored
from services.subscriptions.budgets import OverBudgetError
from services.turns.attempts import NewAttempt
from services.turns.model_calls import ModelCalls
from services.turns.steps import Claim
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser
from tests.fixtures.budgets import store_limits, today
from tests.fixtures.charges import cost_of, tokens_of, used_by
from tests.fixtures.stack import Stack

MODEL: Final = "claude-haiku-5-5"
MAX_TOKENS: Final = 4_096
USERS: Final = 4
TURNS: Final = 50
AT_ONCE: Final = 10
STEPS: Final = 2

TURN: Final = """
WITH chat AS (INSERT INTO chats (id, user_id, title) VALUES ($1, $2, 'Any')),
message AS (
    INSERT INTO messages (id, chat_id, user_id, turn_id, role, content)
    VALUES ($4, $1, $2, $3, 'user', $5)
)
INSERT INTO turns (id, chat_id, user_id, user_message_id, active, model, status, prompt)
VALUES ($3, $1, $2, $4, true, $6, 'running', jsonb_build_object('firstTurnId', $3::text))
"""


class Fate(StrEnum):
    """What becomes of an attempt."""

    ANSWERED = "answered"
    REFUSED = "refused"
    BROKEN_OFF = "broken off"
    CANCELLED = "cancelled"
    LOST = "lost"


FATES: Final = (
    *[Fate.ANSWERED] * 4,
    *(Fate.REFUSED, Fate.BROKEN_OFF, Fate.CANCELLED, Fate.LOST),
)


class Crowd:
    """Turns of one user; what becomes of each attempt is drawn by a seeded generator."""

    def __init__(self, stack: Stack, user: ApiUser, seed: int) -> None:
        self._stack = stack
        self._chance = random.Random(seed)
        self._calls: ModelCalls = stack.activities.turns._model_calls
        self.user_id = UserId(UUID(user.id))
        self.asked: list[str] = []
        self._running = asyncio.Semaphore(AT_ONCE)
        self.refusals: list[BudgetExceeded] = []

    async def run(self, turns: int) -> None:
        await asyncio.gather(*(self._turn() for _ in range(turns)))

    async def _turn(self) -> None:
        async with self._running:
            await self._whole_turn()

    async def _whole_turn(self) -> None:
        turn = TurnReference(
            turn_id=TurnId(new_id()), chat_id=ChatId(new_id()), user_id=self.user_id, model=MODEL
        )
        question = f"q{turn.turn_id}"
        database = self._stack.foundation.database
        async with database.statements(acting_user(self.user_id)) as connection:
            await connection.execute(
                TURN, turn.chat_id, self.user_id, turn.turn_id, new_id(), question, MODEL
            )
        self.asked.append(question)
        try:
            for step in range(1, STEPS + 1):
                await self._step(turn, step, question)
        except OverBudgetError as error:
            self.refusals.append(error.refusal)
        except asyncio.CancelledError:
            pass
        ending = FinishTurnInput(turn=turn, status=TurnStatus.CANCELLED)
        # What an activity would be retried for: the crowd waits for connections.
        await until_stored(lambda: self._stack.foundation.ending.finish(ending))

    async def _step(self, turn: TurnReference, step: int, question: str) -> None:
        """Attempt a step until it has an answer, at most a few times."""
        call = CallModelInput(turn=turn, step=step, model=MODEL)
        for number in range(1, 4):
            claim = Claim("run", f"step {step}", number)
            fate = self._chance.choice(FATES)
            if fate is Fate.LOST:
                # The worker dies before it sends anything.
                begun = await until_stored(
                    partial(self._calls._steps.begin, call, claim, max_tokens=MAX_TOKENS)
                )
                assert isinstance(begun, NewAttempt)
                continue
            self._stack.model.add(self._script(fate, question, is_last=step == STEPS))
            running = asyncio.ensure_future(until_stored(partial(self._calls.run, call, claim)))
            if fate is Fate.CANCELLED:
                await self._cancel(running, question)
            try:
                await running
            except ModelCallError:
                continue
            return

    async def _cancel(self, running: "asyncio.Task[Any]", question: str) -> None:
        """Cancel a call once the model answers, if it is made at all."""
        model = self._stack.model
        answering = asyncio.create_task(
            model.wait_until(
                lambda: any(
                    record.deltas_sent and not record.ended
                    for record in model.requests_matching(question)
                )
            )
        )
        await asyncio.wait([running, answering], return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        running.cancel()

    def _script(self, fate: Fate, question: str, *, is_last: bool) -> Script:
        words = tuple("word " * self._chance.randrange(1, 40) for _ in range(3))
        match fate:
            case Fate.REFUSED:
                return Script(match=question, status=529)
            case Fate.BROKEN_OFF:
                return Script(match=question, pieces=words, break_after=1)
            case Fate.CANCELLED:
                return Script(match=question, pieces=words, hold=question, hold_after=2)
            case _:
                # An answer that ends the turn ends it at once.
                return Script(match=question, pieces=words, stop_reason=None if is_last else PAUSED)


async def check(stack: Stack, crowd: Crowd, budget: Decimal) -> None:
    """Assert what holds of a user's money when everything has ended."""
    rows = await stack.inspection.rows(
        "SELECT * FROM ledger WHERE user_id = $1 ORDER BY id", crowd.user_id
    )
    assert {row["status"] for row in rows} <= {"settled", "failed", "cancelled", "lost"}
    by_turn: dict[str, list[dict[str, Any]]] = {question: [] for question in crowd.asked}
    for row in rows:
        assert row["cost_usd"] == row["charged_usd"] == cost_of(stack, row)
        # A lost attempt sent nothing; what it might have cost was recorded before.
        if row["status"] != "lost":
            by_turn[f"q{row['turn_id']}"].append(row)
    for question, charges in by_turn.items():
        records = stack.model.requests_matching(question)
        for charge, record in zip(charges, records, strict=True):
            charged, counted = tokens_of(charge), used_by(record)
            assert counted is not None
            if charge["estimated"] and record.status == 200:
                # Cut off: counted by the words that arrived. The last may have been on their way,
                # or all of them and the provider's count of the prompt.
                assert charged.output_tokens <= written_tokens(record.shown)
                assert charged.input_tokens == counted.input_tokens or not charged.output_tokens
            else:
                assert charged == counted
    billed = sum((row["cost_usd"] for row in rows), Decimal(0))
    error = max((row["cost_usd"] - row["reserved_usd"] for row in rows), default=Decimal(0))
    assert billed <= budget + max(error, Decimal(0))
    kept = await today(stack.inspection, crowd.user_id)
    assert kept["charged_usd"] == kept["settled_usd"] == billed


@pytest.mark.parametrize("seed", [1])
async def test_no_budget_is_overrun_and_nothing_stays_reserved(stack: Stack, seed: int) -> None:
    users = [await stack.sign_up() for _ in range(USERS)]
    crowds = [Crowd(stack, user, seed * 100 + n) for n, user in enumerate(users)]
    longest = stack.foundation.pricing.dearest(MODEL, input_tokens=60).output * MAX_TOKENS
    budgets = [longest * 3, longest / 4, longest * 20, longest * 500]
    for user, budget in zip(users, budgets, strict=True):
        await store_limits(stack.inspection, user.id, daily_budget_usd=budget)

    await asyncio.gather(*(crowd.run(TURNS) for crowd in crowds))

    for crowd, budget in zip(crowds, budgets, strict=True):
        await check(stack, crowd, budget)
        assert {refusal.scope for refusal in crowd.refusals} <= {BudgetScope.USER}
    # Both kinds occur: users who can't afford all of it, and one who can.
    assert len(crowds[1].refusals) > TURNS / 2
    assert crowds[3].refusals == []
    for user in users:
        used = (await user.request("GET", "/subscription/usage")).json()["data"]
        total = await today(stack.inspection, user.id)
        assert Decimal(used["costUsd"]) == total["settled_usd"]
