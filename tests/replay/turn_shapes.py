"""Shapes that the history of a turn can take, and that of their sweep."""

from typing import Final

from schema.sweeps import SweepPart
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.replay.scene import TURNS_WORKER, Scene
from tests.running_everturn.waiting import eventually

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


async def paused_by_the_model(scene: Scene) -> str:
    return await scene.play("paused", Script(text="Well …", stop_reason="pause_turn"), _SAID)


async def cancelled_in_mid_stream(scene: Scene) -> str:
    scene.answer_by("cancelled", _HELD)
    async with scene.client.ask("cancelled") as stream:
        await stream.until_text("Half an ")
        await scene.client.cancel(stream.turn_id)
        await stream.to_end()
    return f"turn-{stream.turn_id}"


async def cancelled_before_start(scene: Scene) -> str:
    await scene.everturn.stack.stop(TURNS_WORKER)
    async with scene.client.ask("cancelled early") as stream:
        await scene.is_started(f"turn-{stream.turn_id}")
        await scene.client.cancel(stream.turn_id)
        await scene.everturn.stack.start(TURNS_WORKER)
        await stream.to_end()
    return f"turn-{stream.turn_id}"


async def stopped_in_the_database_before_start(scene: Scene) -> str:
    await scene.everturn.stack.stop(TURNS_WORKER)
    async with scene.client.ask("stopped early") as stream:
        await scene.is_started(f"turn-{stream.turn_id}")
        await scene.want_stopped(stream.turn_id)
        await scene.everturn.stack.start(TURNS_WORKER)
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
        async with scene.client.ask(
            "the enqueued", chat_id=chat_id, if_busy="enqueue"
        ) as following:
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


async def sweep_of_all_parts(scene: Scene) -> str:
    """Nothing waits, except a stream to be erased."""
    await scene.everturn.query("INSERT INTO erasures (turn_id) VALUES (gen_random_uuid())")
    return await scene.sweep(*SweepPart)


async def sweep_that_starts_and_closes_turns(scene: Scene) -> str:
    """One turn waits unstarted, one has lost its workflow, and another waits behind that one."""
    scene.answer_by("lost", _HELD)
    for question in ("behind the lost", "never started"):
        scene.answer_by(question, _SAID)
    chat_id = await scene.client.new_chat()
    async with scene.client.ask("has been lost", chat_id=chat_id) as lost:
        await lost.until_text("Half an ")
    async with scene.client.ask("behind the lost", chat_id=chat_id, if_busy="enqueue") as behind:
        pass
    await scene.temporal.get_workflow_handle(f"turn-{lost.turn_id}").terminate()
    await scene.everturn.stack.stop("temporal")
    accepted = await scene.client.send(await scene.client.new_chat(), "never started")
    await scene.everturn.stack.start("temporal")
    await scene.age("turns")
    sweep = await scene.sweep(SweepPart.TURNS)
    for turn_id in (behind.turn_id, accepted["turn"]["id"]):
        await scene.client.events(turn_id)
    return sweep


SHAPES: Final = (
    plain,
    one_tool,
    parallel_tools,
    retried,
    fallback_model,
    fallback_model_failed_too,
    failed_for_good,
    too_large,
    max_steps,
    paused_by_the_model,
    cancelled_in_mid_stream,
    cancelled_before_start,
    stopped_in_the_database_before_start,
    stopped_in_the_database_between_steps,
    followed_by_an_enqueued_turn,
    started_as_the_following_turn,
    sweep_of_all_parts,
    sweep_that_starts_and_closes_turns,
)
