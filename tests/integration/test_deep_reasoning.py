"""The tool `deep_reasoning`: its request, its cost in every case, and no thinking in its output."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from schema.actors import acting_user
from schema.ids import TurnId, UserId, new_id
from schema.usage import TokenUsage
from services.auth.accounts import AccountCache
from services.models.gateway import ModelGateway
from services.models.pricing import UnknownPriceError
from services.tools.deep_reasoning.tool import DeepReasoning
from services.tools.definition import ToolExecution, ToolProgress, ToolUnavailableError
from services.tools.ledger import ToolLedger
from services.tools.local_tools import LocalTools
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.charges import cost_of, tokens_of, used_by
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution
from tests.running_everturn.waiting import eventually
from workers.composition.tools import make_local_tools

MODEL = "claude-opus-5-5"


@pytest.fixture
async def tool(stack: Stack) -> AsyncIterator[DeepReasoning]:
    """The tool with the stack's model, database and prices."""
    settings = stack.settings
    gateway = ModelGateway(
        api_key="key",
        base_url=settings.anthropic_base_url,
        idle_timeout_s=20,
        answer_timeout_s=60,
        connections=5,
    )
    yield DeepReasoning(
        gateway,
        ToolLedger(stack.foundation.database),
        stack.foundation.pricing,
        model=MODEL,
        max_tokens=2_000,
        effort="high",
    )
    await gateway.close()


@pytest.fixture
def question() -> str:
    """A question that no other test asks."""
    return unique()


@pytest.fixture
def execution(user: ApiUser) -> ToolExecution:
    """A call in a turn of the user's."""
    return attempt(user, TurnId(new_id()))


def attempt(user: ApiUser, turn_id: TurnId, **values: object) -> ToolExecution:
    return an_execution(
        actor=acting_user(UserId(UUID(user.id))),
        turn_id=turn_id,
        step=2,
        tool_call_id="toolu_1",
        **values,
    )


async def charges(stack: Stack, execution: ToolExecution) -> list[dict[str, Any]]:
    return await stack.inspection.charges(str(execution.turn_id))


async def test_the_answer_is_returned_without_the_thinking(
    stack: Stack, tool: DeepReasoning, question: str, execution: ToolExecution
) -> None:
    stack.model.add(Script(match=question, thinking="A secret thought.", text=" Forty-two. "))

    outcome = await tool.run({"question": question, "context": "Six. Seven."}, execution)

    assert (outcome.output, outcome.is_error) == ("Forty-two.", False)
    record = await stack.model.wait_for_request(match=question)
    assert record.body is not None
    assert record.body["model"] == MODEL
    assert record.body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert record.body["output_config"] == {"effort": "high"}
    assert record.body["max_tokens"] == 2_000
    assert "tools" not in record.body
    [message] = record.body["messages"]
    assert message["content"] == f"Context:\nSix. Seven.\n\nQuestion:\n{question}"


async def test_the_cost_is_recorded_under_its_own_model(
    stack: Stack, tool: DeepReasoning, question: str, execution: ToolExecution
) -> None:
    stack.model.add(Script(match=question, text="Yes.", usage=ScriptedUsage(output_tokens=700)))

    outcome = await tool.run({"question": question}, execution)

    [row] = await charges(stack, execution)
    record = await stack.model.wait_for_request(match=question)
    assert (row["kind"], row["model"], row["status"]) == ("tool", MODEL, "settled")
    assert (row["step"], row["tool_call_id"], row["estimated"]) == (2, "toolu_1", False)
    assert tokens_of(row) == used_by(record)
    assert row["output_tokens"] == 700
    assert row["cost_usd"] == cost_of(stack, row) == outcome.cost_usd


async def test_the_expected_cost_is_half_of_the_longest_answer(
    stack: Stack, tool: DeepReasoning
) -> None:
    usual = TokenUsage(input_tokens=2_000, output_tokens=1_000)

    assert tool.definition.cost_usd == stack.foundation.pricing.cost(MODEL, usual) > 0


async def test_usage_is_recorded_and_reported_while_it_runs(
    stack: Stack, tool: DeepReasoning, question: str, user: ApiUser
) -> None:
    stack.model.add(
        Script(match=question, thinking="x" * 400, text="Yes.", hold=question, hold_after=30)
    )
    reported: list[ToolProgress] = []
    execution = attempt(user, TurnId(new_id()), report=reported.append)

    running = asyncio.create_task(tool.run({"question": question}, execution))
    [row] = await eventually(
        lambda: charges(stack, execution), lambda rows: bool(rows and rows[0]["output_tokens"] > 50)
    )
    stack.model.release(question)
    await running

    assert (row["status"], row["estimated"]) == ("open", True)
    assert row["cost_usd"] == cost_of(stack, row)
    assert reported[0].message == "thinking"


async def test_a_cancelled_call_is_billed_for_what_it_used(
    stack: Stack, tool: DeepReasoning, question: str, execution: ToolExecution
) -> None:
    stack.model.add(Script(match=question, text="word " * 100, hold=question, hold_after=40))
    running = asyncio.create_task(tool.run({"question": question}, execution))
    await stack.model.wait_until(
        lambda: any(record.deltas_sent == 40 for record in stack.model.requests_matching(question))
    )

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    [row] = await charges(stack, execution)
    record = await stack.model.wait_for_request(match=question, ended=True)
    assert record.disconnected_at is not None
    assert (row["status"], row["estimated"]) == ("cancelled", True)
    assert row["input_tokens"] == record.usage.input_tokens
    assert 0 < row["output_tokens"] <= record.usage.output_tokens * 1.35
    assert row["cost_usd"] == cost_of(stack, row)


async def test_an_answer_that_breaks_off_is_billed_and_retryable(
    stack: Stack, tool: DeepReasoning, question: str, execution: ToolExecution
) -> None:
    stack.model.add(Script(match=question, text="word " * 50, break_after=20))
    stack.model.add(Script(match=question, text="Whole."))

    with pytest.raises(ToolUnavailableError, match="was interrupted") as caught:
        await tool.run({"question": question}, execution)
    outcome = await tool.run({"question": question}, replace(execution, attempt=2))

    assert caught.value.reached
    assert outcome.output == "Whole."
    first, second = await charges(stack, execution)
    assert (first["status"], first["estimated"], first["attempt"]) == ("failed", True, 1)
    assert first["output_tokens"] > 0
    assert (second["status"], second["estimated"], second["attempt"]) == ("settled", False, 2)


async def test_a_busy_provider_says_when_to_retry(
    stack: Stack, tool: DeepReasoning, question: str, execution: ToolExecution
) -> None:
    stack.model.add(Script(match=question, status=429, retry_after=7))

    with pytest.raises(ToolUnavailableError) as caught:
        await tool.run({"question": question}, execution)

    assert caught.value.retry_after == timedelta(seconds=7)
    [row] = await charges(stack, execution)
    assert (row["status"], row["estimated"], row["cost_usd"]) == ("failed", False, 0)


async def test_a_rejected_request_is_an_error_for_the_model(
    stack: Stack, tool: DeepReasoning, question: str, execution: ToolExecution
) -> None:
    stack.model.add(Script(match=question, status=400, message=f"bad {question}"))

    outcome = await tool.run({"question": question}, execution)

    assert outcome.is_error
    assert outcome.output == "Deep reasoning failed. The model provider rejected the request."
    assert outcome.cost_usd == 0
    [row] = await charges(stack, execution)
    assert (row["status"], row["cost_usd"]) == ("failed", 0)


CUT_OFF = "Well\n[The answer was cut off here: it reached its length limit.]"


@pytest.mark.parametrize(
    ("script", "output", "is_error"),
    [
        (Script(thinking="Hm.", stop_reason="max_tokens"), "gave no answer.", True),
        (Script(text="Well", stop_reason="max_tokens"), CUT_OFF, False),
        (Script(text="No.", stop_reason="refusal"), "refused to answer this question.", True),
    ],
)
async def test_an_empty_truncated_or_refused_answer_is_reported(
    stack: Stack, tool: DeepReasoning, script: Script, output: str, *, is_error: bool
) -> None:
    question = unique()
    stack.model.add(script.model_copy(update={"match": question}))

    outcome = await tool.run({"question": question}, an_execution())

    assert output in outcome.output
    assert outcome.is_error is is_error
    assert outcome.cost_usd is not None
    assert outcome.cost_usd > 0


async def test_a_trial_answers_and_records_nothing(
    stack: Stack, tool: DeepReasoning, question: str, user: ApiUser
) -> None:
    stack.model.add(Script(match=question, text="Yes."))
    trial = an_execution(actor=acting_user(UserId(UUID(user.id))))

    outcome = await tool.run({"question": question}, trial)

    assert outcome.output == "Yes."
    count = "SELECT count(*) FROM ledger WHERE user_id = $1"
    assert await stack.inspection.value(count, UUID(user.id)) == 0


async def test_the_demo_model_thinks_when_asked_to(
    tool: DeepReasoning, question: str, execution: ToolExecution
) -> None:
    outcome = await tool.run({"question": question}, execution)

    assert outcome.output.startswith("I am the demo model")


async def test_a_turn_asks_it_and_its_usage_is_the_tools_own(stack: Stack, user: ApiUser) -> None:
    asked, deep, chat = unique(), unique(), await user.create_chat()
    call = ToolCall(name="deep_reasoning", input={"question": deep})
    stack.model.add(Script(match=asked, tool_calls=(call,)))
    stack.model.add(Script(match=deep, thinking="Hm.", text="Because of the tides."))

    events = await user.events_of(chat, asked)

    await user.check_whole(chat, events)
    calls = [event.data for event in events if event.name == "tool_call"]
    assert calls[-1]["output"].count("Because of the tides.") == 1
    usages = [event.data for event in events if event.name == "usage"]
    assert {(usage.get("toolCallId"), usage["model"]) for usage in usages} == {
        (None, stack.settings.default_model),
        (calls[0]["toolCallId"], MODEL),
    }
    turn_id = events[0].data["turnId"]
    rows = await stack.inspection.charges(turn_id)
    assert [row["kind"] for row in rows] == ["model", "tool", "model"]
    turn = await stack.inspection.turn(turn_id)
    assert turn["cost_usd"] == sum(row["cost_usd"] for row in rows)


async def test_a_cancelled_turn_is_billed_for_the_thinking(stack: Stack, user: ApiUser) -> None:
    asked, deep, chat = unique(), unique(), await user.create_chat()
    call = ToolCall(name="deep_reasoning", input={"question": deep})
    stack.model.add(Script(match=asked, tool_calls=(call,)))
    stack.model.add(Script(match=deep, thinking="word " * 100, hold=deep, hold_after=40))

    async with user.stream(chat, asked) as stream:
        await stack.model.wait_until(
            lambda: any(record.deltas_sent == 40 for record in stack.model.requests_matching(deep))
        )
        await user.cancel(stream.turn_id)
        events = await stream.all()

    assert events[-1].data["status"] == "cancelled"
    record = await stack.model.wait_for_request(match=deep, ended=True)
    assert record.disconnected_at is not None
    turn = await stack.inspection.turn(stream.turn_id)
    rows = await stack.inspection.charges(stream.turn_id)
    assert [(row["kind"], row["status"]) for row in rows] == [
        ("model", "settled"),
        ("tool", "cancelled"),
    ]
    assert rows[1]["output_tokens"] > 0
    assert turn["cost_usd"] == sum(row["cost_usd"] for row in rows)


def tools_of(stack: Stack, **settings: object) -> LocalTools:
    changed = stack.settings.model_copy(update=settings)
    foundation = replace(stack.foundation, settings=changed)
    return make_local_tools(foundation, AccountCache(foundation.database, lifetime_s=0))


async def test_the_tool_is_missing_without_a_model(stack: Stack) -> None:
    for model in (None, ""):
        assert tools_of(stack, deep_reasoning_model=model).get("deep_reasoning") is None


async def test_a_model_without_a_price_fails_the_start(stack: Stack) -> None:
    with pytest.raises(UnknownPriceError):
        tools_of(stack, deep_reasoning_model="claude-of-nowhere")


async def test_a_process_without_a_model_gateway_only_lists_the_tool(stack: Stack) -> None:
    described = tools_of(stack).get("deep_reasoning")
    assert described is not None

    with pytest.raises(ToolUnavailableError) as caught:
        await described.run({"question": "Why?"}, an_execution())

    assert described.definition.cost_usd > 0
    assert not caught.value.reached
