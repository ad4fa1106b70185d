"""How tool calls run as activities: of those that run in a worker of turns, few of each turn."""

import asyncio
from dataclasses import replace
from typing import Any, cast

from temporalio.testing import ActivityEnvironment

from activities.heartbeats import TurnHeartbeats
from activities.tools import ToolActivities
from schema.ids import ChatId, TurnId, UserId, new_id
from schema.turns import RunToolInput, RunToolOutput, ToolCallStatus, TurnReference
from services.events.stops import StopListener
from services.turns.tool_calls import ToolCalls

AT_ONCE = 2
HEARTBEATS = TurnHeartbeats(StopListener(cast("Any", None)))
DONE = RunToolOutput(status=ToolCallStatus.COMPLETED)


class HeldCalls:
    """Calls that begin, and end when they may."""

    def __init__(self) -> None:
        self.begun: list[RunToolInput] = []
        self.may_end = asyncio.Event()

    async def run(self, call: RunToolInput) -> RunToolOutput:
        self.begun.append(call)
        await self.may_end.wait()
        return DONE


def calls_of_a_turn(count: int) -> list[RunToolInput]:
    turn = TurnReference(
        turn_id=TurnId(new_id()), chat_id=ChatId(new_id()), user_id=UserId(new_id()), model="m"
    )
    return [
        RunToolInput(turn=turn, step=1, tool_call_id=f"c{number}", name="calculator")
        for number in range(count)
    ]


def begin(
    activities: ToolActivities, calls: list[RunToolInput], *, is_local: bool
) -> list[asyncio.Task[Any]]:
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, is_local=is_local)
    return [
        asyncio.create_task(cast("Any", environment.run(activities.run_tool, call)))
        for call in calls
    ]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_few_instant_calls_of_a_turn_run_at_a_time_and_those_of_others_beside_them() -> None:
    held = HeldCalls()
    activities = ToolActivities(cast("ToolCalls", held), cast("Any", None), HEARTBEATS)
    many, other = calls_of_a_turn(3 * AT_ONCE), calls_of_a_turn(1)

    running = begin(activities, many, is_local=True)
    await settle()
    running += begin(activities, other, is_local=True)
    await settle()

    assert held.begun == [*many[:AT_ONCE], *other]
    held.may_end.set()
    assert await asyncio.gather(*running) == [DONE] * len(running)
    assert len(held.begun) == len(running)
    running.clear()
    assert dict(activities._gates) == {}


async def test_calls_on_the_queue_for_slow_tools_run_side_by_side() -> None:
    held = HeldCalls()
    activities = ToolActivities(cast("ToolCalls", held), cast("Any", None), HEARTBEATS)
    many = calls_of_a_turn(3 * AT_ONCE)

    running = begin(activities, many, is_local=False)
    await settle()

    assert held.begun == many
    held.may_end.set()
    assert await asyncio.gather(*running) == [DONE] * len(running)
