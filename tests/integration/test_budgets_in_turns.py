"""Budgets in turns: reserved before each paid call, released after it, and never overrun."""

import asyncio
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from schema.turns import CallModelInput, FinishTurnInput, TurnReference, TurnStatus
from schema.usage import TokenUsage
from services.subscriptions.budgets import OverBudgetError
from services.turns.attempts import NewAttempt
from services.turns.steps import AttemptOvertakenError, Claim
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import store_limits, today
from tests.fixtures.charges import check_charges
from tests.fixtures.event_stream import Event, named, rebuild, turn_id_of
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack
from tests.integration.test_fencing import running_turn, steps_of

MODEL: Final = "claude-haiku-5-5"
MAX_TOKENS: Final = 4_096


def price_of_answer(stack: Stack, tokens: int) -> Decimal:
    return stack.foundation.pricing.cost(MODEL, TokenUsage(output_tokens=tokens))


def codes(events: list[Event], name: str) -> list[Any]:
    return [event.data["code"] for event in named(events, name)]


async def test_a_call_reserves_its_longest_answer_and_settles_for_its_own(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Short.", hold=question))
    await store_limits(stack.inspection, user.id, budget_usd=Decimal(1))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.model.wait_for_request(match=question, timeout_s=60)
        held = await today(stack.inspection, user.id)
        stack.model.release(question)
        await user.check_whole(chat, await stream.all())

    assert held["charged_usd"] > price_of_answer(stack, MAX_TOKENS)
    assert held["charged_tokens"] > MAX_TOKENS
    assert (held["settled_usd"], held["settled_tokens"]) == (0, 0)
    (charge,) = await check_charges(stack, stream.turn_id, question)
    assert charge["reserved_usd"] == held["charged_usd"]
    after = await today(stack.inspection, user.id)
    assert after["charged_usd"] == after["settled_usd"] == charge["cost_usd"]


async def test_what_is_left_shortens_the_answer_with_a_notice(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Short."))
    budget = price_of_answer(stack, 1_500)
    await store_limits(stack.inspection, user.id, daily_budget_usd=budget)
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "completed"
    assert codes(events, "notice") == ["budget_shortens_answer"]
    (record,) = stack.model.requests_matching(question)
    assert record.body is not None
    assert 256 <= record.body["max_tokens"] < 1_500
    (charge,) = await stack.inspection.charges(turn_id_of(events))
    assert budget - price_of_answer(stack, 1) < charge["reserved_usd"] <= budget


async def test_a_turn_says_once_that_answers_are_short(user: ApiUser, stack: Stack) -> None:
    question = unique()
    usage = ScriptedUsage(input_tokens=10, output_tokens=10)
    call = ToolCall(name="calculator", input={"expression": "1+1"})
    stack.model.add(Script(match=question, status=529, retry_after=0.05))
    stack.model.add(Script(match=question, text="First. ", tool_calls=(call,), usage=usage))
    stack.model.add(Script(match=question, text="Second.", usage=usage))
    await store_limits(stack.inspection, user.id, daily_budget_usd=price_of_answer(stack, 3_000))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert rebuild(events) == "First. Second."
    asked = stack.model.requests_matching(question)
    assert len(asked) == 3
    assert all(record.body["max_tokens"] < MAX_TOKENS for record in asked if record.body)
    assert codes(events, "notice") == ["budget_shortens_answer"]


async def test_a_longer_answer_than_a_budget_left_room_for_costs_what_it_is_billed_for(
    user: ApiUser, stack: Stack
) -> None:
    """Some servers of models don't heed the limit; they bill all the same."""
    question = unique()
    usage = ScriptedUsage(input_tokens=10, output_tokens=4_000)
    stack.model.add(Script(match=question, text="Short.", usage=usage))
    await store_limits(stack.inspection, user.id, daily_budget_usd=price_of_answer(stack, 1_500))

    events = await user.events_of(await user.create_chat(), question)

    (charge,) = await check_charges(stack, turn_id_of(events), question)
    assert (charge["output_tokens"], charge["estimated"]) == (4_000, False)


async def test_a_step_that_no_longer_fits_ends_the_turn_and_keeps_what_was_said(
    user: ApiUser, stack: Stack
) -> None:
    question, gate = unique(), unique("gate")
    call = ToolCall(name=GATE_TOOL, input={"gate": gate})
    usage = ScriptedUsage(input_tokens=10, output_tokens=3_000)
    stack.model.add(Script(match=question, text="First. ", tool_calls=(call,), usage=usage))
    await store_limits(stack.inspection, user.id, daily_budget_tokens=10**6)
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate)
        # Changed in mid-turn: it counts from the next call on.
        await store_limits(stack.inspection, user.id, daily_budget_tokens=3_050)
        stack.gate_tool.open(gate)
        events = await stream.all()

    await user.check_whole(chat, events)
    assert (rebuild(events), events[-1].data["status"]) == ("First. ", "failed")
    (error,) = named(events, "error")
    assert (error.data["code"], error.data["retryable"]) == ("BUDGET_EXCEEDED", False)
    assert "daily token budget" in error.data["message"]
    assert len(stack.model.requests_matching(question)) == 1
    (charge,) = await stack.inspection.charges(stream.turn_id)
    assert (charge["status"], charge["output_tokens"]) == ("settled", 3_000)
    assert (await today(stack.inspection, user.id))["charged_tokens"] == 3_010


async def test_no_fallback_model_is_asked_where_the_budget_is_used_up(tight: Stack) -> None:
    user, question = await tight.sign_up(), unique()
    await store_limits(tight.inspection, user.id, budget_usd=Decimal("0.0000001"))
    chat = await user.create_chat()

    events = await user.events_of(chat, question)

    await user.check_whole(chat, events)
    assert codes(events, "error") == ["BUDGET_EXCEEDED"]
    assert tight.model.requests_matching(question) == []
    assert await tight.inspection.charges(turn_id_of(events)) == []


async def test_a_budget_of_zero_lets_no_call_be_made(user: ApiUser, stack: Stack) -> None:
    turn = await running_turn(user, stack)
    await store_limits(stack.inspection, user.id, budget_usd=Decimal(0))
    call = CallModelInput(turn=turn, step=1, model=MODEL)

    with pytest.raises(OverBudgetError) as refused:
        await steps_of(stack).begin(call, Claim("run", "activity", 1), max_tokens=MAX_TOKENS)

    refusal = refused.value.refusal
    assert (refusal.scope, refusal.unit, refusal.window) == ("user", "usd", "month")
    assert await stack.inspection.charges(str(turn.turn_id)) == []
    await finish(stack, turn)


async def test_turns_that_race_for_the_last_cent_never_overrun_it(
    user: ApiUser, stack: Stack
) -> None:
    steps = steps_of(stack)
    probe, *turns = [await running_turn(user, stack) for _ in range(8)]

    async def begin(turn: TurnReference) -> object:
        call = CallModelInput(turn=turn, step=1, model=MODEL)
        return await steps.begin(call, Claim("run", "activity", 1), max_tokens=300)

    await begin(probe)
    one = (await today(stack.inspection, user.id))["charged_usd"]
    await store_limits(stack.inspection, user.id, budget_usd=one * 3 + price_of_answer(stack, 40))
    begun = await asyncio.gather(*map(begin, turns), return_exceptions=True)

    assert sum(isinstance(attempt, NewAttempt) for attempt in begun) == 2
    assert sum(isinstance(attempt, OverBudgetError) for attempt in begun) == 5
    held = (await today(stack.inspection, user.id))["charged_usd"]
    assert held <= one * 3 + price_of_answer(stack, 40)
    for turn in (probe, *turns):
        await finish(stack, turn)
    after = await today(stack.inspection, user.id)
    assert after["charged_usd"] == after["settled_usd"]


async def test_an_attempt_that_died_does_not_stand_in_its_own_way(
    user: ApiUser, stack: Stack
) -> None:
    turn, steps = await running_turn(user, stack), steps_of(stack)
    call = CallModelInput(turn=turn, step=1, model=MODEL)
    # Enough for one whole answer, not for two.
    await store_limits(stack.inspection, user.id, budget_usd=price_of_answer(stack, 6_000))

    first = await steps.begin(call, Claim("run", "activity", 1), max_tokens=MAX_TOKENS)
    second = await steps.begin(call, Claim("run", "activity", 2), max_tokens=MAX_TOKENS)

    assert isinstance(first, NewAttempt)
    assert isinstance(second, NewAttempt)
    assert (first.max_tokens, second.max_tokens) == (MAX_TOKENS, MAX_TOKENS)
    lost, held = await stack.inspection.charges(str(turn.turn_id))
    assert (lost["status"], held["status"]) == ("lost", "open")
    after = await today(stack.inspection, user.id)
    assert after["charged_usd"] == lost["cost_usd"] + held["reserved_usd"]
    await finish(stack, turn)


async def test_a_stored_answer_is_returned_although_nothing_is_left(
    user: ApiUser, stack: Stack
) -> None:
    turn, steps = await running_turn(user, stack), steps_of(stack)
    call = CallModelInput(turn=turn, step=1, model=MODEL)
    attempt = await steps.begin(call, Claim("run", "activity", 1), max_tokens=MAX_TOKENS)
    assert isinstance(attempt, NewAttempt)
    await store_limits(stack.inspection, user.id, budget_usd=Decimal(0))

    with pytest.raises((OverBudgetError, AttemptOvertakenError)):
        await steps.begin(call, Claim("run", "activity", 1), max_tokens=MAX_TOKENS)
    await steps.complete(
        attempt,
        answer="Yes.",
        blocks=[{"type": "text", "text": "Yes."}],
        stop_reason="end_turn",
        tool_requests=(),
        usage=TokenUsage(input_tokens=1, output_tokens=1),
    )
    stored = await steps.begin(call, Claim("run", "activity", 2), max_tokens=MAX_TOKENS)

    assert not isinstance(stored, NewAttempt)
    assert stored.stop_reason == "end_turn"
    await finish(stack, turn)


async def test_the_notice_of_a_process_that_died_before_it_was_published_comes_at_the_end(
    user: ApiUser, stack: Stack
) -> None:
    """And only once, however often the end is repeated."""
    turn, steps = await running_turn(user, stack), steps_of(stack)
    call = CallModelInput(turn=turn, step=1, model=MODEL)
    await store_limits(stack.inspection, user.id, daily_budget_tokens=10_000)
    attempt = await steps.begin(call, Claim("run", "activity", 1), max_tokens=MAX_TOKENS)
    assert isinstance(attempt, NewAttempt)

    completed = await steps.complete(
        attempt,
        answer="Yes.",
        blocks=[{"type": "text", "text": "Yes."}],
        stop_reason="end_turn",
        tool_requests=(),
        usage=TokenUsage(input_tokens=8_500, output_tokens=1),
    )
    await stack.foundation.events.append_attempt(turn.turn_id, [attempt.start], step=1, attempt=1)
    async with user.follow(str(turn.turn_id)) as stream:
        await stream.until_named("step")
        for _ in range(2):
            await finish(stack, turn)
        events = await stream.all()

    assert len(completed.reached) == 2
    assert codes(events, "notice") == ["budget_reached"]
    left = "SELECT count(*) FROM alerts WHERE unreported_in = $1"
    assert await stack.inspection.value(left, turn.turn_id) == 0


async def finish(stack: Stack, turn: TurnReference) -> None:
    ending = FinishTurnInput(turn=turn, status=TurnStatus.CANCELLED)
    await stack.foundation.ending.finish(ending)


async def test_a_user_deleted_in_mid_turn_leaves_no_reservation(stack: Stack) -> None:
    user = await stack.sign_up()
    await store_limits(stack.inspection, user.id, budget_usd=Decimal(1))
    turn, steps = await running_turn(user, stack), steps_of(stack)
    call = CallModelInput(turn=turn, step=1, model=MODEL)
    attempt = await steps.begin(call, Claim("run", "activity", 1), max_tokens=MAX_TOKENS)
    assert isinstance(attempt, NewAttempt)

    await stack.inspection.execute("DELETE FROM users WHERE id = $1", UUID(user.id))
    await steps.abandon(attempt, answer="", usage=TokenUsage(), failed=True, estimated=True)
    await finish(stack, turn)

    left = "SELECT * FROM {} WHERE user_id = $1"
    for table in ("ledger", "usage_days", "budgets"):
        assert await stack.inspection.rows(left.format(table), UUID(user.id)) == [], table
