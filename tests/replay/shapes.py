"""Owns producing every shape that a workflow's history can take, each by the real thing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from temporalio.client import Client as TemporalClient
from temporalio.client import ScheduleActionExecutionStartWorkflow

from schema.names import SWEEP_SCHEDULE_ID
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually
from workers.demo_model.scripts import Script, ToolCall

# Few steps and attempts, so that the limits are reached soon; no sweep but those asked for.
SETTINGS: Final = {
    "EVERTURN_ANSWER_WAIT_S": "10",
    "EVERTURN_FALLBACK_MODEL": "claude-sonnet-5-5",
    "EVERTURN_MAX_STEPS": "2",
    "EVERTURN_MODEL_ATTEMPTS": "2",
    "EVERTURN_PROMPT_TOKENS": "4000",
    "EVERTURN_SWEEP_INTERVAL_S": "86400",
}

_WORKER: Final = "worker-turns"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a shape is produced with."""

    everturn: ScriptedStack
    client: Client
    temporal: TemporalClient

    async def play(self, question: str, *scripts: Script) -> str:
        """Let a turn run to its end, its model answering by these scripts; return its workflow."""
        self.answer_by(question, *scripts)
        async with self.client.ask(question) as stream:
            await stream.to_end()
        return f"turn-{stream.turn_id}"

    def answer_by(self, question: str, *scripts: Script) -> None:
        for script in scripts:
            self.everturn.model.add(script.model_copy(update={"match": question}))

    async def is_started(self, turn_id: str) -> None:
        """Wait until Temporal knows the turn's workflow."""

        async def found() -> int:
            query = f"WorkflowId = 'turn-{turn_id}'"
            return (await self.temporal.count_workflows(query)).count

        await eventually(found, lambda count: count == 1)

    async def want_stopped(self, turn_id: str) -> None:
        """Write down that the turn is to stop, and tell its workflow nothing."""
        await self.everturn.query(
            "UPDATE turns SET cancel_requested_at = now() WHERE id = $1::text::uuid", turn_id
        )

    async def age_turns(self) -> None:
        """Make all turns old enough for a sweep to look at."""
        await self.everturn.query("UPDATE turns SET created_at = created_at - interval '1 minute'")

    async def sweep(self) -> str:
        """Let a sweep run to its end, and return its workflow."""
        schedule = self.temporal.get_schedule_handle(SWEEP_SCHEDULE_ID)
        before = await self._newest_sweep()
        await schedule.trigger()
        newest = await eventually(self._newest_sweep, lambda workflow: workflow != before)
        await self.temporal.get_workflow_handle(newest).result()
        return newest

    async def _newest_sweep(self) -> str:
        schedule = self.temporal.get_schedule_handle(SWEEP_SCHEDULE_ID)
        actions = (await schedule.describe()).info.recent_actions
        if not actions:
            return ""
        newest = actions[-1].action
        assert isinstance(newest, ScheduleActionExecutionStartWorkflow)
        return newest.workflow_id


_SAID: Final = Script(text="The answer.")
_OVERLOADED: Final = Script(status=529)
_HELD: Final = Script(pieces=("Half an ", "answer."), hold="never", hold_after=1)


def _calling(*names: str) -> Script:
    calls = [
        ToolCall(id=f"toolu_{number}", name=name, input={"expression": "6 * 7"})
        for number, name in enumerate(names, start=1)
    ]
    return Script(text="Let me see. ", tool_calls=tuple(calls))


async def plain(scene: Scene) -> str:
    return await scene.play("plain", _SAID)


async def one_tool(scene: Scene) -> str:
    return await scene.play("one tool", _calling("calculator"), _SAID)


async def parallel_tools(scene: Scene) -> str:
    """One of the tools is there, one gets an input that it refuses, one does not exist."""
    return await scene.play("tools", _calling("calculator", "datetime", "no_such_tool"), _SAID)


async def retried(scene: Scene) -> str:
    return await scene.play("retried", _OVERLOADED, _SAID)


async def fallback_model(scene: Scene) -> str:
    return await scene.play("fallback", _OVERLOADED, _OVERLOADED, _SAID)


async def fallback_model_failed_too(scene: Scene) -> str:
    return await scene.play("no fallback helps", *[_OVERLOADED] * 4)


async def failed_for_good(scene: Scene) -> str:
    return await scene.play("refused by the provider", Script(status=400))


async def too_large(scene: Scene) -> str:
    return await scene.play("too large " * 2_500)


async def max_steps(scene: Scene) -> str:
    return await scene.play("for ever", _calling("calculator"), _calling("calculator"))


async def cancelled_in_mid_stream(scene: Scene) -> str:
    scene.answer_by("cancelled", _HELD)
    async with scene.client.ask("cancelled") as stream:
        await stream.until_text("Half an ")
        await scene.client.cancel(stream.turn_id)
        await stream.to_end()
    return f"turn-{stream.turn_id}"


async def cancelled_before_start(scene: Scene) -> str:
    await scene.everturn.stack.stop(_WORKER)
    async with scene.client.ask("cancelled early") as stream:
        await scene.is_started(stream.turn_id)
        await scene.client.cancel(stream.turn_id)
        await scene.everturn.stack.start(_WORKER)
        await stream.to_end()
    return f"turn-{stream.turn_id}"


async def stopped_in_the_database_before_start(scene: Scene) -> str:
    await scene.everturn.stack.stop(_WORKER)
    async with scene.client.ask("stopped early") as stream:
        await scene.is_started(stream.turn_id)
        await scene.want_stopped(stream.turn_id)
        await scene.everturn.stack.start(_WORKER)
        await stream.to_end()
    return f"turn-{stream.turn_id}"


async def stopped_in_the_database_between_steps(scene: Scene) -> str:
    held = _calling("calculator").model_copy(update={"hold": "step", "hold_after": 1})
    scene.answer_by("stopped between", held)
    async with scene.client.ask("stopped between") as stream:
        await scene.everturn.model.wait_for_request(match="stopped between")
        await scene.want_stopped(stream.turn_id)
        scene.everturn.model.release("step")
        await stream.to_end()
    return f"turn-{stream.turn_id}"


async def followed_by_an_enqueued_turn(scene: Scene) -> str:
    scene.answer_by("before the next", Script(text="First.", hold="next"))
    scene.answer_by("the enqueued", _SAID)
    chat_id = await scene.client.new_chat()
    async with scene.client.ask("before the next", chat_id=chat_id) as stream:
        await scene.everturn.model.wait_for_request(match="before the next")
        async with scene.client.ask("the enqueued", chat_id=chat_id, ifBusy="enqueue") as following:
            scene.everturn.model.release("next")
            await following.to_end()
    await scene.temporal.get_workflow_handle(f"turn-{stream.turn_id}").result()
    return f"turn-{stream.turn_id}"


async def started_as_the_following_turn(scene: Scene) -> str:
    first = await followed_by_an_enqueued_turn(scene)
    query = "WorkflowType = 'ChatTurn' AND ParentWorkflowId = '" + first + "'"

    async def children() -> list[str]:
        return [run.id async for run in scene.temporal.list_workflows(query)]

    (child,) = await eventually(children, lambda found: len(found) == 1)
    return child


async def sweep_that_finds_nothing(scene: Scene) -> str:
    return await scene.sweep()


async def sweep_that_starts_and_closes(scene: Scene) -> str:
    """One turn waits unstarted, one has lost its workflow, and another waits behind that one."""
    scene.answer_by("lost", _HELD)
    for question in ("behind the lost", "never started"):
        scene.answer_by(question, _SAID)
    chat_id = await scene.client.new_chat()
    async with scene.client.ask("has been lost", chat_id=chat_id) as lost:
        await lost.until_text("Half an ")
    async with scene.client.ask("behind the lost", chat_id=chat_id, ifBusy="enqueue") as behind:
        pass
    await scene.temporal.get_workflow_handle(f"turn-{lost.turn_id}").terminate()
    await scene.everturn.stack.stop("temporal")
    accepted = await scene.client.send(await scene.client.new_chat(), "never started")
    await scene.everturn.stack.start("temporal")
    await scene.age_turns()
    sweep = await scene.sweep()
    for turn_id in (behind.turn_id, accepted.json()["data"]["turn"]["id"]):
        await scene.client.events(turn_id)
    return sweep


Shape: TypeAlias = Callable[[Scene], Awaitable[str]]

SHAPES: Final[dict[str, Shape]] = {
    shape.__name__: shape
    for shape in (
        plain,
        one_tool,
        parallel_tools,
        retried,
        fallback_model,
        fallback_model_failed_too,
        failed_for_good,
        too_large,
        max_steps,
        cancelled_in_mid_stream,
        cancelled_before_start,
        stopped_in_the_database_before_start,
        stopped_in_the_database_between_steps,
        followed_by_an_enqueued_turn,
        started_as_the_following_turn,
        sweep_that_finds_nothing,
        sweep_that_starts_and_closes,
    )
}
