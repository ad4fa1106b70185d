"""What changes while a turn runs: its day or period ends, its plan changes, its model miscounts."""

from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from tests.fakes.scripted_model.scripts import Script, ScriptedUsage, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import limit_plan, limit_user, store_limits, today
from tests.fixtures.event_stream import Event, EventStream, named, rebuild, turn_id_of
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack

USED: Final = ScriptedUsage(input_tokens=10, output_tokens=3_000)

# A charge keeps its day: both are moved, as if the day had ended in between.
_AGE: Final = (
    "UPDATE ledger SET created_at = created_at - interval '1 day' WHERE user_id = $1",
    "UPDATE usage_days SET day = day - 1 WHERE user_id = $1",
)
_DAYS: Final = """
SELECT (now() AT TIME ZONE 'UTC')::date - day AS days_ago,
       sum(settled_tokens + held_tokens) AS charged_tokens, sum(settled_tokens) AS settled_tokens
FROM (
    SELECT day, settled_tokens, 0 AS held_tokens FROM usage_days
    WHERE scope = 'user' AND subject_id = $1
    UNION ALL
    SELECT (created_at AT TIME ZONE 'UTC')::date, 0, charged_tokens FROM ledger
    WHERE user_id = $1 AND status = 'open'
) AS charged
GROUP BY day ORDER BY day
"""


async def age(stack: Stack, user: ApiUser) -> None:
    """Let all calls that a user has begun have begun a day earlier."""
    for statement in _AGE:
        await stack.inspection.execute(statement, UUID(user.id))


async def days_of(stack: Stack, user: ApiUser) -> list[tuple[int, int, int]]:
    """Return days ago, and the tokens charged and settled then, oldest first."""
    rows = await stack.inspection.rows(_DAYS, UUID(user.id))
    return [tuple(row.values()) for row in rows]


def two_steps(stack: Stack) -> tuple[str, str]:
    """Script a turn that waits at a gate between two steps; return its question and the gate."""
    question, gate = unique(), unique("gate")
    call = ToolCall(name=GATE_TOOL, input={"gate": gate})
    stack.model.add(Script(match=question, text="First. ", tool_calls=(call,), usage=USED))
    stack.model.add(Script(match=question, text="Second.", usage=USED))
    return question, gate


async def rest_of(stack: Stack, stream: EventStream, gate: str) -> list[Event]:
    stack.gate_tool.open(gate)
    return await stream.all()


def check_stopped(events: list[Event]) -> None:
    """Assert that the first step stayed, and no budget was left for the second."""
    assert (rebuild(events), events[-1].data["status"]) == ("First. ", "failed")
    assert [event.data["code"] for event in named(events, "error")] == ["BUDGET_EXCEEDED"]


async def test_a_call_counts_in_the_day_in_which_it_began_and_the_next_step_in_its_own(
    user: ApiUser, stack: Stack
) -> None:
    question, gate = two_steps(stack)
    await store_limits(stack.inspection, user.id, daily_budget_tokens=10_000)
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate)
        # With this, a second step on the same day would not fit.
        await stack.inspection.execute(
            "UPDATE ledger SET output_tokens = 10000 WHERE user_id = $1", UUID(user.id)
        )
        await age(stack, user)
        events = await rest_of(stack, stream, gate)

    await user.check_whole(chat, events)
    assert (rebuild(events), events[-1].data["status"]) == ("First. Second.", "completed")
    assert await days_of(stack, user) == [(1, 10_010, 10_010), (0, 3_010, 3_010)]


async def test_a_call_that_is_answered_after_midnight_counts_in_the_day_before(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Late.", usage=USED, hold=question))
    await store_limits(stack.inspection, user.id, daily_budget_tokens=10_000)
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.model.wait_for_request(match=question, timeout_s=60)
        await age(stack, user)
        ((_, held, settled),) = await days_of(stack, user)
        stack.model.release(question)
        events = await stream.all()

    assert events[-1].data["status"] == "completed"
    assert (held > 3_010, settled) == (True, 0)
    assert await days_of(stack, user) == [(1, 3_010, 3_010)]
    usage = (await user.request("GET", "/subscription/usage")).json()["data"]["budget"]
    assert usage["day"]["tokens"] == {"limit": 10_000, "used": 0, "reserved": 0, "left": 10_000}


async def test_a_period_that_ends_in_mid_turn_leaves_the_next_step_a_whole_budget(
    user: ApiUser, admin: ApiUser, stack: Stack
) -> None:
    question, gate = two_steps(stack)
    await limit_plan(admin, user, budgetTokens=10_000)
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate)
        await stack.inspection.execute(
            "UPDATE ledger SET output_tokens = 10000 WHERE user_id = $1", UUID(user.id)
        )
        # The next period has begun right behind the first call.
        await stack.inspection.execute(
            "UPDATE subscriptions SET started_at = (SELECT max(created_at) FROM ledger"
            " WHERE user_id = $1) + interval '1 microsecond' - interval '4 years'"
            " WHERE user_id = $1",
            UUID(user.id),
        )
        events = await rest_of(stack, stream, gate)

    assert events[-1].data["status"] == "completed"
    usage = (await user.request("GET", "/subscription/usage")).json()["data"]["budget"]
    month = usage["month"]["tokens"]
    assert month == {"limit": 10_000, "used": 3_010, "reserved": 0, "left": 6_990}


@pytest.mark.parametrize("change", ["plan", "other plan", "own budget"])
async def test_a_budget_that_shrinks_in_mid_turn_stops_the_next_step(
    user: ApiUser, admin: ApiUser, stack: Stack, change: str
) -> None:
    question, gate = two_steps(stack)
    plan = await limit_plan(admin, user, budgetTokens=10**6)
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate)
        if change == "plan":
            body: dict[str, Any] = {"entitlements": {"budgetTokens": 3_050}}
            response = await admin.request("PATCH", f"/admin/plans/{plan}", json=body)
            assert response.status_code == 200, response.text
        elif change == "other plan":
            await limit_plan(admin, user, dailyBudgetTokens=3_050)
        else:
            await limit_user(admin, user, dailyBudgetUsd="0")
        events = await rest_of(stack, stream, gate)

    await user.check_whole(chat, events)
    check_stopped(events)
    assert await days_of(stack, user) == [(0, 3_010, 3_010)]


async def test_a_chat_goes_on_behind_a_turn_that_a_budget_stopped(
    user: ApiUser, admin: ApiUser, stack: Stack
) -> None:
    question, gate = two_steps(stack)
    later = unique("later")
    await limit_user(admin, user, dailyBudgetTokens=10_000)
    chat = await user.create_chat()
    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate)
        await limit_user(admin, user, dailyBudgetTokens=3_050)
        check_stopped(await rest_of(stack, stream, gate))
    refused = await user.request("POST", f"/chats/{chat}/messages", json={"content": later})
    await admin.request("DELETE", f"/admin/users/{user.id}/budget")
    stack.model.add(Script(match=later, text="Go on."))

    answer = await user.ask(chat, later)

    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "BUDGET_EXCEEDED")
    assert answer["assistantMessage"]["content"] == "Go on."
    request = await stack.model.wait_for_request(match=later)
    assert request.body is not None
    asked, said, again = request.body["messages"]
    assert asked["content"][-1]["text"] == question
    assert [block["type"] for block in said["content"]] == ["text", "tool_use"]
    # The refused message in between had no answer, and is left out.
    assert [block["type"] for block in again["content"]] == ["tool_result", "text"]
    assert again["content"][-1]["text"] == later
    open_charges = "SELECT count(*) FROM ledger WHERE user_id = $1 AND status = 'open'"
    assert await stack.inspection.value(open_charges, UUID(user.id)) == 0


async def test_a_budget_that_is_lifted_in_mid_turn_lets_the_next_step_be_made(
    user: ApiUser, admin: ApiUser, stack: Stack
) -> None:
    question, gate = two_steps(stack)
    await limit_user(admin, user, dailyBudgetTokens=10_000)
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate)
        await limit_user(admin, user, dailyBudgetTokens=3_050)
        await admin.request("DELETE", f"/admin/users/{user.id}/budget")
        events = await rest_of(stack, stream, gate)

    assert (rebuild(events), events[-1].data["status"]) == ("First. Second.", "completed")


@pytest.mark.parametrize("reported", [10**18, 0], ids=["a quintillion", "none"])
async def test_a_model_that_miscounts_is_charged_an_estimate_and_the_budget_stays_usable(
    user: ApiUser, stack: Stack, reported: int
) -> None:
    question = unique()
    usage = ScriptedUsage(input_tokens=reported, output_tokens=reported)
    stack.model.add(Script(match=question, text="Two words.", usage=usage))
    await store_limits(stack.inspection, user.id, daily_budget_tokens=50_000, budget_usd=Decimal(1))
    chat = await user.create_chat()

    first = await user.events_of(chat, question)
    after = await today(stack.inspection, user.id)
    second = await user.events_of(chat, unique())

    assert [events[-1].data["status"] for events in (first, second)] == ["completed"] * 2
    (row,) = await stack.inspection.charges(turn_id_of(first))
    assert (row["status"], row["estimated"]) == ("settled", True)
    assert 0 < after["charged_tokens"] == after["settled_tokens"] < 20_000
    assert 0 < after["charged_usd"] == after["settled_usd"] < Decimal("0.1")
