"""Turns whose model calls webhooks: answered at once, later, never, twice, wrongly, too late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from starlette.responses import Response

from activities import names
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fakes.webhook_engine import (
    ReceivedCall,
    WebhookEngine,
    a_web_page,
    at_once,
    call_back,
    failing,
    later,
    later_once,
    never,
)
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event, EventStream, named, rebuild
from tests.fixtures.stack import Stack
from tests.fixtures.workflow_tools import RegisteredTool, engine_for, register_tool


@pytest.fixture
async def engine(stack: Stack) -> AsyncIterator[WebhookEngine]:
    """A workflow engine."""
    async with engine_for(stack) as opened:
        yield opened


@pytest.fixture
async def tool(admin: ApiUser, engine: WebhookEngine) -> RegisteredTool:
    """A tool of the engine."""
    return await register_tool(admin, engine)


@dataclass
class Asked:
    """A turn whose model has called a tool, and ends with `Done.` whatever the outcome."""

    stack: Stack
    user: ApiUser
    chat: str
    stream: EventStream

    async def end(self) -> tuple[str, str | None]:
        """Return the status and the output of the call once the turn has ended."""
        events: list[Event] = await self.stream.all()
        await self.user.check_whole(self.chat, events)
        assert rebuild(events) == "Done."
        assert events[-1].data["status"] == "completed"
        last = named(events, "tool_call")[-1].data
        return last["status"], last.get("output")


@asynccontextmanager
async def asked(stack: Stack, user: ApiUser, tool: RegisteredTool) -> AsyncIterator[Asked]:
    """Ask something that the model answers after a call of the tool."""
    question = unique()
    call = ToolCall(name=tool.name, input={"title": "Printer on fire"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="Done."))
    chat = await user.create_chat()
    async with user.stream(chat, question) as stream:
        yield Asked(stack, user, chat, stream)


async def test_an_immediate_answer_is_the_output(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, at_once({"ticket": 7}))

    async with asked(stack, user, tool) as turn:
        assert await turn.end() == ("completed", '{"ticket":7}')

    (got,) = engine.calls[tool.name]
    assert got.is_signed()
    assert got.body["chatId"] == turn.chat
    assert got.body["turnId"] == turn.stream.turn_id


async def test_a_turn_waits_for_a_deferred_answer(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, later())

    async with asked(stack, user, tool) as turn:
        got = await engine.wait_for_call(tool.name)
        response = await call_back(stack.http, got.callback_path, {"output": "Ticket 7."})
        assert await turn.end() == ("completed", "Ticket 7.")

    assert response.status_code == 200
    assert len(engine.calls[tool.name]) == 1


async def test_a_workflow_may_call_back_before_it_accepts(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    statuses: list[int] = []

    async def hurry(got: ReceivedCall) -> Response:
        answer = await call_back(stack.http, got.callback_path, {"output": "Ticket 7."})
        statuses.append(answer.status_code)
        return Response(status_code=202)

    engine.script(tool.name, hurry)

    async with asked(stack, user, tool) as turn:
        assert await turn.end() == ("completed", "Ticket 7.")
    assert statuses == [200]


async def test_the_first_of_two_answers_counts(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, later())

    async with asked(stack, user, tool) as turn:
        got = await engine.wait_for_call(tool.name)
        first = await call_back(stack.http, got.callback_path, {"output": "Ticket 7."})
        second = await call_back(stack.http, got.callback_path, {"output": "Ticket 8."})
        assert await turn.end() == ("completed", "Ticket 7.")

    assert (first.status_code, second.status_code) == (200, 409)


async def test_an_immediate_answer_is_not_replaced_by_a_later_one(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, at_once("Ticket 7."))

    async with asked(stack, user, tool) as turn:
        assert await turn.end() == ("completed", "Ticket 7.")
    (got,) = engine.calls[tool.name]
    response = await call_back(stack.http, got.callback_path, {"output": "Ticket 8."})

    assert response.status_code == 409
    assert await stored_output(stack, turn.stream.turn_id) == "Ticket 7."


async def test_a_wrong_signature_does_not_wake_the_turn(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, later())

    async with asked(stack, user, tool) as turn:
        got = await engine.wait_for_call(tool.name)
        wrong = await call_back(
            stack.http, got.callback_path, {"output": "Evil."}, secret="a wrong secret here"
        )
        await call_back(stack.http, got.callback_path, {"output": "Good."})
        assert await turn.end() == ("completed", "Good.")

    assert wrong.status_code == 401


async def test_a_workflow_that_never_calls_back_holds_the_turn_only_until_its_timeout(
    stack: Stack, user: ApiUser, admin: ApiUser, engine: WebhookEngine
) -> None:
    tool = await register_tool(admin, engine, timeout_s=1)
    engine.script(tool.name, later())

    async with asked(stack, user, tool) as turn:
        status, output = await turn.end()
    (got,) = engine.calls[tool.name]
    late = await call_back(stack.http, got.callback_path, {"output": "Ticket 7."})

    assert status == "failed"
    assert output
    assert late.status_code == 409
    assert await stored_output(stack, turn.stream.turn_id) == output


async def test_a_webhook_that_never_answers_holds_the_turn_only_until_its_timeout(
    stack: Stack, user: ApiUser, admin: ApiUser, engine: WebhookEngine
) -> None:
    tool = await register_tool(admin, engine, timeout_s=0.5, retryClass="never")
    over = asyncio.Event()
    engine.script(tool.name, never(over))

    async with asked(stack, user, tool) as turn:
        status, output = await turn.end()
    over.set()

    assert status == "failed"
    assert "outcome of this call is unknown" in str(output)
    assert len(engine.calls[tool.name]) == 1


async def test_a_stopped_turn_neither_awaits_nor_accepts_an_answer(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, later())

    async with asked(stack, user, tool) as turn:
        got = await engine.wait_for_call(tool.name)
        await user.cancel(turn.stream.turn_id)
        events = await turn.stream.all()
    response = await call_back(stack.http, got.callback_path, {"output": "Ticket 7."})

    assert events[-1].data["status"] == "cancelled"
    assert response.status_code == 409


async def test_a_stop_just_before_the_webhook_takes_the_call_is_honoured(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    released = asyncio.Event()
    engine.script(tool.name, later_once(released))

    async with asked(stack, user, tool) as turn:
        await engine.wait_for_call(tool.name)
        await user.cancel(turn.stream.turn_id)
        released.set()
        events = await turn.stream.all()
    handle = stack.temporal.get_workflow_handle(f"turn-{turn.stream.turn_id}")
    history = (await handle.fetch_history()).to_json()

    assert events[-1].data["status"] == "cancelled"
    assert names.RUN_TOOL in history
    assert names.AWAIT_CALLBACK not in history


async def test_a_webhook_that_fails_for_a_moment_is_called_again_with_the_same_key(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, failing(503), at_once("Ticket 7."))

    async with asked(stack, user, tool) as turn:
        assert await turn.end() == ("completed", "Ticket 7.")

    first, second = engine.calls[tool.name]
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert (first.body["attempt"], second.body["attempt"]) == (1, 2)
    assert first.body["callbackUrl"] == second.body["callbackUrl"]


async def test_a_webhook_that_may_be_called_once_is_not_called_again(
    stack: Stack, user: ApiUser, admin: ApiUser, engine: WebhookEngine
) -> None:
    tool = await register_tool(admin, engine, retryClass="never")
    engine.script(tool.name, failing(503), at_once("Ticket 8."))

    async with asked(stack, user, tool) as turn:
        status, output = await turn.end()

    assert status == "failed"
    assert "outcome of this call is unknown" in str(output)
    assert len(engine.calls[tool.name]) == 1


async def test_a_web_page_ends_the_call_and_not_the_turn(
    stack: Stack, user: ApiUser, tool: RegisteredTool, engine: WebhookEngine
) -> None:
    engine.script(tool.name, a_web_page())

    async with asked(stack, user, tool) as turn:
        status, output = await turn.end()

    assert status == "failed"
    assert "web page" in str(output)


async def stored_output(stack: Stack, turn_id: str) -> str:
    output: str = await stack.inspection.value(
        "SELECT output FROM tool_calls WHERE turn_id = $1::text::uuid", turn_id
    )
    return output


async def test_no_turn_waits_for_a_host_that_does_not_exist(
    stack: Stack, admin: ApiUser, user: ApiUser, engine: WebhookEngine
) -> None:
    tool = await register_tool(admin, engine, url="http://nowhere.invalid/hook", timeout_s=600)

    for _turn in range(2):
        async with asked(stack, user, tool) as turn:
            assert await turn.end() == (
                "failed",
                "The workflow could not be called. The host does not exist.",
            )


async def test_a_turn_that_waits_for_a_server_says_so(
    stack: Stack, user: ApiUser, *, admin: ApiUser, engine: WebhookEngine, unused_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/hook"
    tool = await register_tool(admin, engine, url=url, timeout_s=600)

    async with asked(stack, user, tool) as turn:
        waiting = await turn.stream.until(lambda event: "progress" in event.data)
        async with asyncio.timeout(2):
            await user.cancel(turn.stream.turn_id)
            events = await turn.stream.all()

    assert waiting.data["status"] == "running"
    assert waiting.data["progress"] == {
        "progress": 0,
        "message": "The tool's server is unavailable. Waiting for it.",
    }
    assert events[-1].data["status"] == "cancelled"
