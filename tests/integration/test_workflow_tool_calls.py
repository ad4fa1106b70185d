"""Calling webhooks: what they are sent, and what becomes of every kind of answer."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest

from schema.actors import acting_user
from schema.ids import UserId
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError
from services.tools.executor import AnswersLater
from services.tools.masks import MASK
from services.workflow_tools.calls import WorkflowToolCalls
from tests.fakes.raw_server import speaking_plain_text
from tests.fakes.webhook_engine import (
    SECRET,
    WebhookEngine,
    a_web_page,
    at_once,
    breaking_off,
    failing,
    later,
    never,
    typed,
    until_hung_up,
)
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution
from tests.fixtures.workflow_tools import (
    PUBLIC_URL,
    RegisteredTool,
    RunningCall,
    calling,
    engine_for,
    register_tool,
    running_call,
)

INPUT = {"title": "Drucker brennt: 🔥 \x7f"}


@pytest.fixture
async def engine(stack: Stack) -> AsyncIterator[WebhookEngine]:
    """A workflow engine."""
    async with engine_for(stack) as opened:
        yield opened


@pytest.fixture
async def calls(stack: Stack) -> AsyncIterator[WorkflowToolCalls]:
    """What calls webhooks."""
    async with calling(stack) as opened:
        yield opened


@pytest.fixture
async def tool(admin: ApiUser, engine: WebhookEngine) -> RegisteredTool:
    """A tool of the engine."""
    return await register_tool(admin, engine)


@pytest.fixture
async def call(stack: Stack, tool: RegisteredTool, user: ApiUser) -> RunningCall:
    """A call of the tool in a turn under way."""
    return await running_call(stack, user, tool)


async def run(
    calls: WorkflowToolCalls, tool: RegisteredTool, execution: ToolExecution | None = None
) -> ToolOutcome:
    outcome = await calls.run(tool.definition, INPUT, execution or an_execution())
    assert isinstance(outcome, ToolOutcome)
    return outcome


async def test_a_webhook_receives_a_signed_request(
    calls: WorkflowToolCalls, engine: WebhookEngine, call: RunningCall
) -> None:
    outcome = await run(calls, call.tool, replace(call.execution, attempt=2))

    assert outcome == ToolOutcome(output="done")
    (got,) = engine.calls[call.tool.name]
    callback_id = str((await call.stored())["callback_id"])
    assert got.body == {
        "tool": call.tool.name,
        "input": INPUT,
        "key": call.execution.key,
        "turnId": str(call.things.turn),
        "chatId": str(call.things.chat),
        "userId": str(call.things.user),
        "toolCallId": "c",
        "step": 1,
        "attempt": 2,
        "callbackId": callback_id,
        "callbackUrl": f"{PUBLIC_URL}/api/v1/tool-callbacks/{callback_id}",
    }
    assert got.is_signed()
    assert not got.is_signed("another secret")
    assert got.raw.isascii()
    assert got.headers["idempotency-key"] == call.execution.key
    assert got.headers["webhook-id"] == call.execution.key
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"].startswith("everturn/")


async def test_every_attempt_has_the_same_key_and_the_same_callback(
    calls: WorkflowToolCalls, engine: WebhookEngine, call: RunningCall
) -> None:
    await run(calls, call.tool, call.execution)
    await run(calls, call.tool, replace(call.execution, attempt=2))

    first, second = (got.body for got in engine.calls[call.tool.name])
    assert first == second | {"attempt": 1}


async def test_a_key_that_a_header_cannot_hold_is_encoded(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    key = "turn:1:toolu_\r\nX-Evil: ä"

    await run(calls, tool, an_execution(key=key))

    (got,) = engine.calls[tool.name]
    assert got.body["key"] == key
    assert got.headers["idempotency-key"] == "turn:1:toolu_%0D%0AX-Evil:%20%C3%A4"
    assert got.is_signed()


async def test_a_trial_has_no_turn_and_no_callback(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, later())

    outcome = await run(calls, tool)

    (got,) = engine.calls[tool.name]
    assert got.body["callbackUrl"] is got.body["callbackId"] is got.body["turnId"] is None
    assert "don't wait" in outcome.output


async def test_a_webhook_may_answer_later(
    calls: WorkflowToolCalls, engine: WebhookEngine, call: RunningCall
) -> None:
    engine.script(call.tool.name, later())
    answer = await calls.run(call.tool.definition, INPUT, call.execution)

    (got,) = engine.calls[call.tool.name]
    assert answer == AnswersLater(UUID(got.body["callbackId"]))


async def test_a_call_that_has_ended_is_not_repeated(
    calls: WorkflowToolCalls, engine: WebhookEngine, call: RunningCall
) -> None:
    await call.change("tool_calls", "status = 'failed'")

    with pytest.raises(ToolUnavailableError) as raised:
        await calls.run(call.tool.definition, INPUT, call.execution)

    assert not raised.value.reached
    assert engine.calls[call.tool.name] == []


async def test_users_cannot_call_as_another_user(
    calls: WorkflowToolCalls, call: RunningCall, other_user: ApiUser
) -> None:
    other = acting_user(UserId(UUID(other_user.id)))

    with pytest.raises(ToolUnavailableError):
        await calls.run(call.tool.definition, INPUT, replace(call.execution, actor=other))

    assert (await call.stored())["callback_id"] is None


async def test_a_web_page_is_not_a_result(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, a_web_page())

    outcome = await run(calls, tool)

    assert outcome.is_error
    assert "web page" in outcome.output


async def test_an_answer_of_many_megabytes_is_not_read(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, typed(b'"' + b"x" * (10 * 1024 * 1024) + b'"', "application/json"))

    outcome = await run(calls, tool)

    assert outcome.is_error
    assert "1,048,576 bytes" in outcome.output


async def test_a_redirect_is_not_followed(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, failing(307, headers={"Location": engine.url("elsewhere")}))

    outcome = await run(calls, tool)

    assert outcome.is_error
    assert "redirect" in outcome.output
    assert engine.calls["elsewhere"] == []


async def test_a_webhook_that_fails_for_a_moment_may_be_called_again(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, failing(503, headers={"Retry-After": "3"}), at_once("better"))

    with pytest.raises(ToolUnavailableError) as raised:
        await run(calls, tool)
    again = await run(calls, tool)

    assert raised.value.reached
    assert raised.value.retry_after is not None
    assert raised.value.retry_after.total_seconds() == 3
    assert again.output == "better"


@pytest.mark.parametrize("status", [200, 400])
async def test_a_webhook_that_repeats_its_secret_is_masked(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine, status: int
) -> None:
    basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
    engine.script(
        tool.name, at_once({"error": "x" * 410, "key": SECRET, "of": basic}, status=status)
    )

    outcome = await run(calls, tool)

    assert MASK in outcome.output
    assert SECRET[:8] not in outcome.output
    assert basic not in outcome.output


async def test_a_broken_connection_leaves_the_outcome_unknown(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, breaking_off())

    with pytest.raises(ToolUnavailableError) as raised:
        await run(calls, tool)

    assert raised.value.reached


async def test_a_webhook_that_never_answers_leaves_the_outcome_unknown(
    calls: WorkflowToolCalls, admin: ApiUser, engine: WebhookEngine
) -> None:
    tool = await register_tool(admin, engine, timeout_s=0.3)
    over = asyncio.Event()
    engine.script(tool.name, never(over))

    with pytest.raises(ToolUnavailableError) as raised:
        await run(calls, tool)
    over.set()

    assert raised.value.reached


async def test_a_refused_connection_has_no_effect(
    calls: WorkflowToolCalls, admin: ApiUser, engine: WebhookEngine
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    tool = await register_tool(admin, engine, url=f"http://127.0.0.1:{port}/hook")

    with pytest.raises(ToolUnavailableError) as raised:
        await run(calls, tool)

    assert not raised.value.reached


async def test_a_non_public_host_is_called_only_if_allowed(
    stack: Stack, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    async with calling(stack, "flows.example.com") as calls:
        outcome = await run(calls, tool)

    assert (outcome.is_error, outcome.cost_usd) == (True, Decimal(0))
    assert "could not be called. The host has a private address." in outcome.output
    assert engine.calls[tool.name] == []


async def test_a_webhook_without_tls_where_it_should_be_is_not_waited_for(
    calls: WorkflowToolCalls, admin: ApiUser, engine: WebhookEngine
) -> None:
    async with speaking_plain_text() as port:
        tool = await register_tool(admin, engine, url=f"https://127.0.0.1:{port}/hook")
        outcome = await run(calls, tool)

    assert outcome.is_error
    assert outcome.output == "The workflow could not be called. The port does not use TLS."


async def test_stopping_a_call_closes_its_connection(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    hung_up = asyncio.Event()
    engine.script(tool.name, until_hung_up(hung_up))
    running = asyncio.create_task(run(calls, tool))
    await engine.wait_for_call(tool.name)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    async with asyncio.timeout(10):
        await hung_up.wait()
    assert len(engine.calls[tool.name]) == 1


@pytest.mark.parametrize("ending", ["switched off", "deleted"])
async def test_a_disabled_or_deleted_tool_is_not_called(
    calls: WorkflowToolCalls, engine: WebhookEngine, admin: ApiUser, ending: str
) -> None:
    tool = await register_tool(admin, engine)
    path = f"/admin/workflow-tools/{tool.name}"
    if ending == "deleted":
        await admin.request("DELETE", path)
    else:
        await admin.request("PATCH", path, json={"enabled": False})

    outcome = await run(calls, tool)

    assert outcome.is_error
    assert engine.calls[tool.name] == []


async def test_an_unreadable_secret_is_reported_to_the_model_and_nothing_is_called(
    calls: WorkflowToolCalls, tool: RegisteredTool, engine: WebhookEngine, stack: Stack
) -> None:
    await stack.inspection.execute(
        "UPDATE workflow_tools SET secret = 'x' WHERE name = $1", tool.name
    )

    outcome = await run(calls, tool)

    assert outcome.is_error
    assert "administrator" in outcome.output
    assert engine.calls[tool.name] == []
