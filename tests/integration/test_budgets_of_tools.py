"""Paid tools under budgets: a call that does not fit is not made, and the turn goes on."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import pytest

from schema.actors import acting_user
from schema.ids import TurnId, UserId, new_id
from schema.tools import ToolDefinition
from schema.usage import TokenUsage
from services.models.gateway import ModelGateway
from services.tools.deep_reasoning.tool import DeepReasoning
from services.tools.definition import LocalTool, ToolExecution, ToolOutcome
from services.tools.executor import ToolExecutor
from services.tools.ledger import ToolLedger
from services.turns.tool_attempts import ToolAttempts
from tests.fakes.raw_server import serving_raw
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import store_limits, today
from tests.fixtures.charges import cost_of
from tests.fixtures.event_stream import Event, named, rebuild, turn_id_of
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution
from tests.fixtures.web_search import COST, FINE, making_tools

THINKER: Final = "claude-opus-5-5"
NOT_MADE: Final = "This call was not made: it costs more than the budget has left."


class OneTool:
    """An executor of one tool, which is always permitted."""

    def __init__(self, tool: LocalTool) -> None:
        self._tool = tool

    async def run(
        self, _: ToolDefinition, tool_input: dict[str, Any], execution: ToolExecution
    ) -> ToolOutcome:
        """Run it."""
        return await self._tool.run(tool_input, execution)


async def attempted(
    stack: Stack, tool: LocalTool, execution: ToolExecution, **tool_input: str
) -> ToolOutcome:
    """Run a tool as a turn does."""
    foundation = stack.foundation
    attempts = ToolAttempts(
        cast("ToolExecutor", OneTool(tool)),
        ToolLedger(foundation.database),
        foundation.events,
        attempts=1,
    )
    outcome = await attempts.run(tool.definition, dict(tool_input), execution)
    assert isinstance(outcome, ToolOutcome)
    return outcome


def a_call(user: ApiUser) -> ToolExecution:
    return an_execution(
        actor=acting_user(UserId(UUID(user.id))),
        turn_id=TurnId(new_id()),
        step=1,
        tool_call_id="toolu_1",
    )


def price_of_thoughts(stack: Stack, tokens: int) -> Decimal:
    return stack.foundation.pricing.cost(THINKER, TokenUsage(output_tokens=tokens))


@asynccontextmanager
async def thinker(stack: Stack, *, max_tokens: int) -> AsyncIterator[DeepReasoning]:
    gateway = ModelGateway(
        api_key="key",
        base_url=stack.settings.anthropic_base_url,
        idle_timeout_s=20,
        answer_timeout_s=60,
        connections=5,
    )
    try:
        yield DeepReasoning(
            gateway,
            ToolLedger(stack.foundation.database),
            stack.foundation.pricing,
            model=THINKER,
            max_tokens=max_tokens,
            effort="high",
        )
    finally:
        await gateway.close()


async def refusals(stack: Stack, user: ApiUser) -> list[str]:
    """Return the reasons of the alerts of a user's budgets at 100 %."""
    rows = await stack.inspection.rows(
        "SELECT details FROM alerts WHERE user_id = $1 ORDER BY id", UUID(user.id)
    )
    details = [json.loads(row["details"]) for row in rows]
    return [one["reason"] for one in details if one["threshold"] == 100]


async def ask_for(
    stack: Stack, user: ApiUser, call: ToolCall, *, budget: Decimal
) -> tuple[str, list[Event]]:
    """Send a message whose answer calls the tool, then goes on; return it and the events."""
    question = unique()
    stack.model.add(Script(match=question, text="First. ", tool_calls=(call,)))
    stack.model.add(Script(match=question, text="Without it."))
    await store_limits(stack.inspection, user.id, daily_budget_usd=budget)
    chat = await user.create_chat()
    events = await user.events_of(chat, question)
    await user.check_whole(chat, events)
    return question, events


async def check_refused(stack: Stack, user: ApiUser, question: str, events: list[Event]) -> None:
    """Assert that the tool was not called, the model was told, and nothing is left of it."""
    assert (rebuild(events), events[-1].data["status"]) == ("First. Without it.", "completed")
    last = named(events, "tool_call")[-1].data
    assert last["status"] == "failed"
    assert last["output"].startswith(NOT_MADE)
    second = stack.model.requests_matching(question)[1].body
    assert second is not None
    assert NOT_MADE in json.dumps(second["messages"])
    rows = await stack.inspection.charges(turn_id_of(events))
    assert [(row["kind"], row["status"]) for row in rows] == [("model", "settled")] * 2
    spent = await today(stack.inspection, user.id)
    assert spent["charged_usd"] == spent["settled_usd"] == sum(row["cost_usd"] for row in rows)
    assert await refusals(stack, user) == ["refused"]
    assert named(events, "notice") == []


async def test_a_paid_tool_that_does_not_fit_is_not_called_and_the_turn_goes_on(
    stack: Stack, user: ApiUser
) -> None:
    gate = unique("gate")
    call = ToolCall(name=GATE_TOOL, input={"gate": gate})

    await stack.inspection.execute(
        "INSERT INTO tool_settings (name, cost_usd) VALUES ($1, 100)", GATE_TOOL
    )
    try:
        question, events = await ask_for(stack, user, call, budget=Decimal(50))
    finally:
        await stack.inspection.execute("DELETE FROM tool_settings WHERE name = $1", GATE_TOOL)

    await check_refused(stack, user, question, events)
    assert gate not in stack.gate_tool.runs


async def test_deep_reasoning_that_does_not_fit_asks_no_model_and_the_turn_goes_on(
    stack: Stack, user: ApiUser
) -> None:
    deep = unique()
    call = ToolCall(name="deep_reasoning", input={"question": deep})
    budget = price_of_thoughts(stack, 1_000)

    question, events = await ask_for(stack, user, call, budget=budget)

    await check_refused(stack, user, question, events)
    assert stack.model.requests_matching(deep) == []


async def test_a_search_that_does_not_fit_is_not_sent_and_takes_nothing_of_the_quota(
    stack: Stack, user: ApiUser
) -> None:
    refused_call, call = a_call(user), a_call(user)
    async with making_tools(stack) as make, serving_raw(FINE) as engine:
        tool = make(engine.url)
        await store_limits(stack.inspection, user.id, budget_usd=COST - Decimal("0.0001"))
        refused = await attempted(stack, tool, refused_call, query="x")
        sent = engine.accepted
        await store_limits(stack.inspection, user.id, budget_usd=COST)
        found = await attempted(stack, tool, call, query="x")

    assert (refused.is_error, sent) == (True, 0)
    assert refused.output.startswith(NOT_MADE)
    assert await stack.inspection.charges(str(refused_call.turn_id)) == []
    assert (found.is_error, found.cost_usd) == (False, COST)
    usage = (await user.request("GET", "/subscription/usage")).json()["data"]
    assert usage["webSearches"]["used"] == 1
    spent = await today(stack.inspection, user.id)
    assert spent["charged_usd"] == spent["settled_usd"] == COST


@pytest.mark.parametrize("affordable", [1_200, 3_000])
async def test_deep_reasoning_is_shortened_to_what_is_left(
    stack: Stack, user: ApiUser, affordable: int
) -> None:
    """Also where less is left than a usual call costs."""
    question, execution = unique(), a_call(user)
    stack.model.add(Script(match=question, text="Forty-two."))
    budget = price_of_thoughts(stack, affordable)
    await store_limits(stack.inspection, user.id, daily_budget_usd=budget)

    async with thinker(stack, max_tokens=4_000) as tool:
        outcome = await attempted(stack, tool, execution, question=question)

    assert (outcome.output, outcome.is_error) == ("Forty-two.", False)
    (record,) = stack.model.requests_matching(question)
    assert record.body is not None
    assert 1_024 <= record.body["max_tokens"] < affordable
    (row,) = await stack.inspection.charges(str(execution.turn_id))
    assert row["status"] == "settled"
    assert budget - price_of_thoughts(stack, 1) < row["reserved_usd"] <= budget
    assert row["cost_usd"] == cost_of(stack, row) == outcome.cost_usd
    assert (await today(stack.inspection, user.id))["charged_usd"] == row["cost_usd"]


async def test_deep_reasoning_is_refused_where_no_useful_answer_fits(
    stack: Stack, user: ApiUser
) -> None:
    question, execution = unique(), a_call(user)
    budget = price_of_thoughts(stack, 1_024)
    await store_limits(stack.inspection, user.id, daily_budget_usd=budget)

    async with thinker(stack, max_tokens=4_000) as tool:
        outcome = await attempted(stack, tool, execution, question=question)

    assert outcome.output.startswith(NOT_MADE)
    assert (outcome.is_error, outcome.cost_usd) == (True, Decimal(0))
    assert stack.model.requests_matching(question) == []
    assert await stack.inspection.charges(str(execution.turn_id)) == []
