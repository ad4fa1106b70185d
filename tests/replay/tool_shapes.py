"""Shapes of turns whose tools take time, await approval, or fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from schema.names import TRY_TOOL
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fakes.webhook_engine import (
    SECRET,
    Behaviour,
    WebhookEngine,
    at_once,
    failing,
    later,
    later_once,
    webhook_engine,
)
from tests.replay.scene import Scene
from tests.running_everturn.client import EventStream
from tests.running_everturn.waiting import eventually

_SAID: Final = Script(text="The answer.")
_SUM: Final = Script(
    tool_calls=(ToolCall(id="sum", name="calculator", input={"expression": "6 * 7"}),)
)


async def tool_on_the_queue(scene: Scene) -> str:
    recall = ToolCall(id="it", name="recall", input={"query": "anything"})
    return await scene.play("recalls", Script(tool_calls=(recall,)), _SAID)


async def webhook_that_is_asked_again(scene: Scene) -> str:
    async with _webhook(scene, "asked_again", failing(503), at_once("done")) as (_, script):
        return await scene.play("asked again", script, _SAID)


async def webhook_that_answers_by_a_callback(scene: Scene) -> str:
    async with _webhook(scene, "called_back", later()) as (engine, script):
        scene.answer_by("called back", script, _SAID)
        async with scene.client.ask("called back") as stream:
            call = await engine.wait_for_call("called_back")
            await _awaits_callback(scene, f"turn-{stream.turn_id}")
            await scene.client.call_back(call.callback_path, "done")
            await stream.to_end()
    return f"turn-{stream.turn_id}"


async def webhook_that_never_calls_back(scene: Scene) -> str:
    async with _webhook(scene, "never_called_back", later(), timeout_s=1.5) as (_, script):
        return await scene.play("never called back", script, _SAID)


async def approved_tool(scene: Scene) -> str:
    return await _decided(scene, "approved", "approve")


async def denied_tool(scene: Scene) -> str:
    return await _decided(scene, "denied", "deny", f"No {SECRET}")


async def tool_that_nobody_approved(scene: Scene) -> str:
    async with _asking(scene):
        return await scene.play("forgotten", _SUM, _SAID)


async def cancelled_while_a_tool_awaits_approval(scene: Scene) -> str:
    async with _asking(scene), _asked(scene, "not wanted") as stream:
        await scene.client.cancel(stream.turn_id)
        await stream.to_end()
    return f"turn-{stream.turn_id}"


async def stopped_while_a_webhook_takes_the_call(scene: Scene) -> str:
    released = asyncio.Event()
    async with _webhook(scene, "stopped", later_once(released)) as (engine, script):
        scene.answer_by("stopped", script, _SAID)
        async with scene.client.ask("stopped") as stream:
            await engine.wait_for_call("stopped")
            await scene.client.cancel(stream.turn_id)
            released.set()
            await stream.to_end()
    return f"turn-{stream.turn_id}"


async def trial_of_a_tool(scene: Scene) -> str:
    tried = await scene.admin.api.admin.tools.test("calculator", {"expression": "6 * 7"})
    assert tried.output == "42"
    (run,) = [run.id async for run in scene.temporal.list_workflows(f"WorkflowType = '{TRY_TOOL}'")]
    return run


async def _decided(
    scene: Scene, question: str, decision: Literal["approve", "deny"], reason: str | None = None
) -> str:
    async with _asking(scene), _asked(scene, question) as stream:
        await scene.client.api.turns.decide(stream.turn_id, "sum", decision, reason=reason)
        await stream.to_end()
    return f"turn-{stream.turn_id}"


@asynccontextmanager
async def _asking(scene: Scene) -> AsyncIterator[None]:
    """The calculator requires approval while the block runs."""
    await scene.admin.api.admin.tools.update("calculator", approval="ask")
    yield
    await scene.admin.api.admin.tools.update("calculator", approval=None)


@asynccontextmanager
async def _asked(scene: Scene, question: str) -> AsyncIterator[EventStream]:
    """Ask something for which the calculator waits."""
    scene.answer_by(question, _SUM, _SAID)
    async with scene.client.ask(question) as stream:
        await stream.until(lambda event: event.data.get("status") == "awaiting_approval")
        yield stream


@asynccontextmanager
async def _webhook(
    scene: Scene, name: str, *behaviours: Behaviour, timeout_s: float = 20
) -> AsyncIterator[tuple[WebhookEngine, Script]]:
    """A webhook that is there while the block runs, and the script of a model that calls it."""
    async with webhook_engine() as engine:
        engine.script(name, *behaviours)
        tools = scene.admin.api.admin.workflow_tools
        await tools.create(
            name=name,
            description="Does something.",
            url=engine.url(name),
            input_schema={"type": "object"},
            secret=SECRET,
            timeout_s=timeout_s,
        )
        yield engine, Script(tool_calls=(ToolCall(id="it", name=name, input={}),))
        await tools.delete(name)


async def _awaits_callback(scene: Scene, workflow_id: str) -> None:
    """Wait until the turn's workflow waits for an answer."""
    handle = scene.temporal.get_workflow_handle(workflow_id)

    async def waiting() -> list[str]:
        pending = (await handle.describe()).raw_description.pending_activities
        return [activity.activity_id for activity in pending]

    await eventually(waiting, lambda ids: "callback-1-it" in ids)


SHAPES: Final = (
    tool_on_the_queue,
    webhook_that_is_asked_again,
    webhook_that_answers_by_a_callback,
    webhook_that_never_calls_back,
    approved_tool,
    denied_tool,
    tool_that_nobody_approved,
    cancelled_while_a_tool_awaits_approval,
    stopped_while_a_webhook_takes_the_call,
    trial_of_a_tool,
)
