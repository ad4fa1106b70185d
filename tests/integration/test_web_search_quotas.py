"""Quotas of web searches: counted once per call, whatever they cost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from schema.actors import acting_user
from schema.ids import TurnId, UserId, new_id
from services.subscriptions.ledger import ChargeStatus
from services.subscriptions.usage import WEB_SEARCH_MODEL
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError
from services.tools.ledger import ToolLedger
from services.tools.web_search.tool import WebSearch
from tests.fakes.raw_server import RawServer, answered, saying, serving_raw
from tests.fixtures.api_user import ApiUser
from tests.fixtures.plans import give_plan, make_plan
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution
from tests.fixtures.web_search import COST, FINE, MakeTool, hanging_up, making_tools


@pytest.fixture
async def make_tool(stack: Stack) -> AsyncIterator[MakeTool]:
    async with making_tools(stack) as make:
        yield make


async def subscribed(stack: Stack, **entitlements: object) -> ApiUser:
    """Return a new user with a plan of their own."""
    admin, user = await stack.sign_up_admin(), await stack.sign_up()
    plan = await make_plan(admin, **entitlements)
    assert (await give_plan(admin, user, plan["id"])).status_code == 200
    return user


def a_call(user: ApiUser, **values: Any) -> ToolExecution:  # noqa: ANN401 -- as an_execution
    named = {"turn_id": TurnId(new_id()), "step": 1, "tool_call_id": f"call-{new_id()}"}
    return an_execution(**{"actor": acting_user(UserId(UUID(user.id))), **named, **values})


async def charged(
    stack: Stack, tool: WebSearch, execution: ToolExecution, *, cost_usd: Decimal = COST
) -> ToolOutcome:
    """Run the tool as a turn does: with a row in the ledger, unless it is free."""
    ledger = ToolLedger(stack.foundation.database)
    if cost_usd:
        await ledger.open(execution, model="web_search", estimate_usd=cost_usd)
    status = ChargeStatus.FAILED
    try:
        outcome = await tool.run({"query": "x"}, execution)
        if not outcome.is_error:
            status = ChargeStatus.SETTLED
        return outcome
    finally:
        if cost_usd:
            await ledger.settle(execution, cost_usd=cost_usd, status=status, estimated=False)


async def rows_of(stack: Stack, user: ApiUser) -> list[tuple[str, str, Decimal]]:
    rows = await stack.inspection.rows(
        "SELECT model, status, cost_usd FROM ledger WHERE user_id = $1 ORDER BY id", UUID(user.id)
    )
    return [(row["model"], row["status"], row["cost_usd"]) for row in rows]


async def test_a_plan_limits_searches_per_period(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=2)
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        outcomes = [await charged(stack, tool, a_call(user)) for _ in range(4)]

    assert [outcome.is_error for outcome in outcomes] == [False, False, True, True]
    assert "2 web searches a month" in outcomes[3].output
    usage = await user.request("GET", "/subscription/usage")
    assert usage.json()["data"]["webSearches"] == {"used": 2, "limit": 2}
    assert len(engine.requests) == 2
    assert [status for _, status, _ in await rows_of(stack, user)] == [
        *("settled", "settled", "failed", "failed")
    ]


async def test_simultaneous_searches_do_not_exceed_the_quota(
    make_tool: MakeTool, stack: Stack
) -> None:
    user = await subscribed(stack, maxWebSearches=5)
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        calls = [a_call(user) for _ in range(20)]
        outcomes = await asyncio.gather(*(charged(stack, tool, call) for call in calls))

    assert [outcome.is_error for outcome in outcomes].count(False) == 5
    assert len(engine.requests) == 5


async def test_a_plan_without_a_limit_allows_all(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack)
    async with serving_raw(FINE) as engine:
        outcomes = [await charged(stack, make_tool(engine.url), a_call(user)) for _ in range(3)]

    assert not any(outcome.is_error for outcome in outcomes)
    assert await rows_of(stack, user) == [(WEB_SEARCH_MODEL, "settled", COST)] * 3


async def test_a_plan_can_allow_none(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=0)
    async with serving_raw(FINE) as engine:
        outcome = await charged(stack, make_tool(engine.url), a_call(user))

    assert outcome.is_error
    assert engine.accepted == 0


async def test_failed_searches_do_not_count(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=1)
    async with serving_raw(saying(answered(b"", status="401 U"))) as engine:
        await charged(stack, make_tool(engine.url), a_call(user))
    async with serving_raw(hanging_up) as engine:
        with pytest.raises(ToolUnavailableError):
            await charged(stack, make_tool(engine.url), a_call(user))
    async with serving_raw(FINE) as engine:
        outcome = await charged(stack, make_tool(engine.url), a_call(user))

    assert not outcome.is_error


async def test_the_attempts_of_a_call_are_one_search(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=1)
    call = a_call(user)
    ledger = ToolLedger(stack.foundation.database)
    # An attempt that was admitted, and whose process died.
    await ledger.open(call, model=WEB_SEARCH_MODEL, estimate_usd=COST)
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        again = await charged(stack, tool, replace(call, attempt=2))
        other = await charged(stack, tool, a_call(user))

    assert (again.is_error, other.is_error) == (False, True)
    assert [status for _, status, _ in await rows_of(stack, user)] == ["lost", "settled", "failed"]


async def test_free_searches_count_too(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=2)
    free = Decimal(0)
    async with serving_raw(saying(answered(b"", status="401 U"))) as engine:
        await charged(stack, make_tool(engine.url), a_call(user), cost_usd=free)
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        outcomes = [await charged(stack, tool, a_call(user), cost_usd=free) for _ in range(3)]

    assert [outcome.is_error for outcome in outcomes] == [False, False, True]
    assert await rows_of(stack, user) == [
        (WEB_SEARCH_MODEL, "failed", free),
        (WEB_SEARCH_MODEL, "settled", free),
        (WEB_SEARCH_MODEL, "settled", free),
    ]


async def test_searches_of_others_and_of_earlier_periods_do_not_count(
    make_tool: MakeTool, stack: Stack
) -> None:
    user, other = await subscribed(stack, maxWebSearches=1), await stack.sign_up()
    async with serving_raw(FINE) as engine:
        tool = make_tool(engine.url)
        await charged(stack, tool, a_call(other))
        await charged(stack, tool, a_call(user))
        await stack.inspection.execute(
            "UPDATE ledger SET created_at = created_at - interval '32 days' WHERE user_id = $1",
            UUID(user.id),
        )
        outcomes = [await charged(stack, tool, a_call(user)) for _ in range(2)]

    assert [outcome.is_error for outcome in outcomes] == [False, True]


async def test_a_search_that_is_cancelled_leaves_the_engine_and_stays_counted(
    make_tool: MakeTool, stack: Stack
) -> None:
    user = await subscribed(stack, maxWebSearches=1)
    asked = asyncio.Event()

    async def answer(_: RawServer, __: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving_raw(answer) as engine, asyncio.timeout(30):
        call = a_call(user)
        running = asyncio.create_task(make_tool(engine.url).run({"query": "x"}, call))
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await engine.hung_up.wait()

    assert await rows_of(stack, user) == [(WEB_SEARCH_MODEL, "cancelled", Decimal(0))]


async def test_a_trial_is_not_counted(make_tool: MakeTool, stack: Stack) -> None:
    user = await subscribed(stack, maxWebSearches=0)
    async with serving_raw(FINE) as engine:
        execution = a_call(user, turn_id=None)
        outcome = await make_tool(engine.url).run({"query": "x"}, execution)

    assert not outcome.is_error
    assert await rows_of(stack, user) == []
