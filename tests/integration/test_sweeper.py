"""The sweeper of a background worker starts workflows where something waits, and only there."""

import asyncio
import time
from datetime import timedelta
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WorkflowExecutionStatus,
)
from temporalio.service import RPCError, RPCStatusCode

from schema.names import BACKGROUND_QUEUE
from schema.sweeps import SweepPart
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import rebuild
from tests.fixtures.mcp import McpScene
from tests.fixtures.stack import Stack
from tests.integration.test_sweep import OLD, store_turn, sweep
from workers.composition.temporal import connect_temporal
from workers.sweeper import RETIRED_SCHEDULES, SWEEP_ID, Sweeper, mcp_sweep_id

PERIOD_S = 100.0


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def sweeper_of(stack: Stack, clock: Clock | None = None) -> Sweeper:
    return Sweeper(
        stack.temporal,
        sweep=stack.activities.sweep,
        reembedding=stack.activities.reembedding,
        mcp=stack.activities.mcp,
        alerts=stack.activities.alerts,
        mail=stack.activities.mail,
        settings=stack.settings.model_copy(
            update={"sweep_interval_s": 3600.0, "mcp_refresh_s": PERIOD_S}
        ),
        clock=clock or Clock(),
    )


def failed_checks() -> float:
    return REGISTRY.get_sample_value("everturn_sweep_checks_failed_total") or 0


async def turns_are_due(stack: Stack) -> bool:
    return SweepPart.TURNS in await stack.activities.sweep.parts_due()


async def run_id_of(stack: Stack, workflow_id: str) -> str | None:
    """Return the id of the workflow's newest run, or None if it never ran."""
    try:
        described = await stack.temporal.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return None
    return described.run_id


async def test_a_check_sweeps_a_turn_that_was_never_started(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Late, but here."))
    chat = await user.create_chat()
    turn_id = await store_turn(user, stack, chat, question)
    await stack.inspection.age(turn_id, by=OLD)

    await sweeper_of(stack).check()
    events = await user.events(turn_id)

    assert rebuild(events) == "Late, but here."
    async with asyncio.timeout(30):
        await stack.temporal.get_workflow_handle(SWEEP_ID).result()
    assert not await turns_are_due(stack)


async def test_a_running_turn_and_a_queued_one_need_no_sweep(user: ApiUser, stack: Stack) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, pieces=("Half", " way"), hold=first, hold_after=1))
    stack.model.add(Script(match=second, text="My turn."))
    await sweep(stack)
    chat = await user.create_chat()

    async with user.stream(chat, first) as stream:
        await stream.until_text("Half")
        waiting = await store_turn(user, stack, chat, second)
        for turn_id in (stream.turn_id, waiting):
            await stack.inspection.age(turn_id, by=OLD)
        while_running = await turns_are_due(stack)
        await stack.temporal.get_workflow_handle(f"turn-{stream.turn_id}").terminate()
        once_terminated = await turns_are_due(stack)
        await sweep(stack)
    await user.events(waiting)

    assert (while_running, once_terminated) == (False, True)


async def test_a_turn_queued_in_an_idle_chat_needs_a_sweep(user: ApiUser, stack: Stack) -> None:
    await sweep(stack)
    chat = await user.create_chat()
    turn_id = await store_turn(user, stack, chat, unique())
    await stack.inspection.age(turn_id, by=OLD)
    await stack.inspection.execute("UPDATE turns SET active = false WHERE id = $1", UUID(turn_id))

    is_due = await turns_are_due(stack)
    await sweep(stack)
    await user.events(turn_id)

    assert is_due


async def test_all_mcp_servers_are_refreshed_once_in_a_period(mcp: McpScene, stack: Stack) -> None:
    await mcp.http("http://127.0.0.1:1/mcp")
    clock = Clock()
    workers = [sweeper_of(stack, clock) for _ in range(2)]
    period = int(clock.now // PERIOD_S)

    await workers[0].check()
    at_start = await run_id_of(stack, mcp_sweep_id(period))
    clock.now += PERIOD_S
    await workers[0].check()
    first = await run_id_of(stack, mcp_sweep_id(period + 1))
    async with asyncio.timeout(60):
        await stack.temporal.get_workflow_handle(mcp_sweep_id(period + 1)).result()
    await workers[1].check()

    assert at_start is None
    assert first is not None
    assert await run_id_of(stack, mcp_sweep_id(period + 1)) == first


async def test_without_mcp_servers_nothing_is_refreshed(stack: Stack) -> None:
    await stack.inspection.execute("DELETE FROM mcp_servers")
    clock = Clock()
    clock.now += 1_000 * PERIOD_S
    worker = sweeper_of(stack, clock)
    clock.now += PERIOD_S

    await worker.check()

    assert await run_id_of(stack, mcp_sweep_id(int(clock.now // PERIOD_S))) is None


@pytest.mark.parametrize("schedule_id", RETIRED_SCHEDULES)
async def test_the_first_check_deletes_the_schedules_of_earlier_versions(
    stack: Stack, schedule_id: str
) -> None:
    every = Schedule(
        action=ScheduleActionStartWorkflow("SweepTurns", id="old", task_queue=BACKGROUND_QUEUE),
        spec=ScheduleSpec(),
    )
    await stack.temporal.create_schedule(schedule_id, every)

    await sweeper_of(stack).check()

    with pytest.raises(RPCError) as raised:
        await stack.temporal.get_schedule_handle(schedule_id).describe()
    assert raised.value.status is RPCStatusCode.NOT_FOUND


async def test_a_run_that_an_earlier_version_started_still_ends(stack: Stack) -> None:
    handle = await stack.temporal.start_workflow(
        "SweepTurns",
        id=f"sweep-{unique()}",
        task_queue=BACKGROUND_QUEUE,
        execution_timeout=timedelta(minutes=1),
    )

    await handle.result()

    assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_a_check_survives_an_outage_of_temporal(stack: Stack) -> None:
    settings = stack.settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    sweeper = Sweeper(
        await connect_temporal(settings, lazy=True),
        sweep=stack.activities.sweep,
        reembedding=stack.activities.reembedding,
        mcp=stack.activities.mcp,
        alerts=stack.activities.alerts,
        mail=stack.activities.mail,
        settings=stack.settings.model_copy(
            update={"sweep_interval_s": 3600.0, "mcp_refresh_s": PERIOD_S}
        ),
    )
    before = failed_checks()

    await sweeper.check()

    assert failed_checks() == before + 1
