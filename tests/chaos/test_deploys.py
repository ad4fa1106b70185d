"""Versions of the workers change in mid-turn: each version ends the turns that it has begun."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from services.settings import Settings
from tests.fakes.scripted_model.scripts import Script
from tests.fakes.webhook_engine import webhook_engine
from tests.running_everturn.beside import (
    ALL_QUEUES,
    Beside,
    beside,
    run_command,
    worker_beside,
)
from tests.running_everturn.changed_turns import WaitingTurn
from tests.running_everturn.checks import assert_paid_for, assert_stream_is_whole
from tests.running_everturn.client import Client
from tests.running_everturn.process import EVERTURN, free_port
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.tools import CallingTurn, administrator, register_webhook
from tests.running_everturn.waiting import eventually
from workers.deployment.moving import move_runs
from workers.deployment.versions import DeploymentError, NotReadyYetError, WorkerVersions
from workers.replay import replay_histories
from workers.workflow_types import ALL_WORKFLOWS
from workflows.chat_turn import ChatTurn

CHANGED = "tests.running_everturn.changed_turns"
OLD = "dev"
"""The version of the stack's own workers."""
WRONG = [*(kind for kind in ALL_WORKFLOWS if kind is not ChatTurn), WaitingTurn]
"""The workflows of code that can't follow the turns of the stack's own workers."""

pytestmark = pytest.mark.timeout(240)  # whole processes start, several for each test


@pytest.fixture
async def promoted(everturn: ScriptedStack) -> AsyncIterator[None]:
    """Put the stack's own version back at the end."""
    yield
    await everturn.stack.start("worker-turns")
    await WorkerVersions(await everturn.temporal()).promote(OLD, within=timedelta(seconds=60))


async def deployment(
    everturn: ScriptedStack, *arguments: str, module: str = "workers", **settings: str
) -> tuple[int, str]:
    return await run_command(everturn, "deployment", *arguments, module=module, **settings)


def settings_of(everturn: ScriptedStack) -> Settings:
    return Settings(_env_file=None, temporal_address=everturn.stack.addresses.temporal)


@asynccontextmanager
async def new_version(
    everturn: ScriptedStack, *, module: str = "workers"
) -> AsyncIterator[tuple[str, Beside]]:
    """Run workers of a new version beside the old ones, not yet current; yield its build id."""
    build_id = f"v{uuid4().hex[:8]}"
    async with worker_beside(
        everturn, ALL_QUEUES, module=module, EVERTURN_BUILD_ID=build_id
    ) as worker:
        yield build_id, worker


async def history_of(everturn: ScriptedStack, turn_id: str) -> WorkflowHistory:
    temporal = await everturn.temporal()
    return await temporal.get_workflow_handle(f"turn-{turn_id}").fetch_history()


def versions_in(history: WorkflowHistory) -> set[str]:
    """Return the build ids of the workers that took the tasks of a history."""
    return {
        event.workflow_task_completed_event_attributes.deployment_version.build_id
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    }


def has_timer(history: WorkflowHistory) -> bool:
    return any(event.event_type == EventType.EVENT_TYPE_TIMER_STARTED for event in history.events)


async def test_a_changed_workflow_is_deployed_in_mid_turn_and_both_versions_end_their_own(
    everturn: ScriptedStack, client: Client, promoted: None
) -> None:
    everturn.model.add(Script(match="before", pieces=("Be", "gun."), hold="deploy", hold_after=1))
    everturn.model.add(Script(match="after", text="New."))

    async with new_version(everturn, module=CHANGED) as (new, _):
        async with client.ask("asked before") as before:
            await before.until_text("Be")
            promotion = await deployment(everturn, "promote", f"--build-id={new}")
            async with client.ask("asked after") as after:
                await after.to_end()
            still = await deployment(everturn, "drained", OLD)
            everturn.model.release("deploy")
            await before.to_end()
        code, drained = await deployment(everturn, "drained", OLD, "--wait=30", "--json")

    assert promotion == (0, f"Version {new} is current. Before: {OLD}.\n")
    assert still == (3, f"Version {OLD}: draining; 1 open runs are pinned to it.\n")
    assert (code, json.loads(drained)["openRuns"]) == (0, 0)
    assert await assert_stream_is_whole(client, before.turn_id, before.events) == "Begun."
    assert await assert_stream_is_whole(client, after.turn_id, after.events) == "New."
    await assert_paid_for(everturn, before.turn_id, "asked before")
    old_history = await history_of(everturn, before.turn_id)
    new_history = await history_of(everturn, after.turn_id)
    assert (versions_in(old_history), has_timer(old_history)) == ({OLD}, False)
    assert (versions_in(new_history), has_timer(new_history)) == ({new}, True)


async def test_a_turn_that_waits_for_approval_moves_to_code_that_can_follow_it(
    everturn: ScriptedStack,
    client: Client,
    promoted: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    temporal = await everturn.temporal()
    async with webhook_engine() as engine:
        admin = await administrator(everturn, client)
        tool = await register_webhook(admin, engine, approval="ask")
        waiting = await CallingTurn.begin(everturn, client, tool)
        await eventually(waiting.stored, lambda row: row.get("status") == "awaiting_approval")
        problem = f"ChatTurn turn-{waiting.turn_id}: can't be followed: "

        wrong = await move_runs(temporal, "wrong", workflows=WRONG)
        with pytest.raises(SystemExit):
            await replay_histories(settings_of(everturn), [], live=9, workflows=WRONG)
        assert any(line.startswith(problem) for line in capsys.readouterr().out.splitlines())
        async with new_version(everturn) as (new, _):
            early = await deployment(everturn, "move", EVERTURN_BUILD_ID=new)
            moved = await deployment(everturn, "promote", "--move", EVERTURN_BUILD_ID=new)
            await everturn.stack.stop("worker-turns")
            await waiting.decide("approve")
            outcome = await waiting.end()

    assert wrong.moved == 0
    assert [str(stays).startswith(problem) for stays in wrong.staying] == [True]
    assert early[0] == 1
    assert early[1].startswith(f"Version {new} is not current, {OLD} is.")
    assert moved[0] == 0
    assert moved[1].splitlines()[1] == f"Moved 1 open runs to {new}; 0 stay."
    assert outcome.status == "completed"
    assert versions_in(await history_of(everturn, waiting.turn_id)) == {OLD, new}


@pytest.mark.nightly
async def test_an_api_that_hosts_a_worker_starts_turns_on_the_current_version(
    everturn: ScriptedStack,
) -> None:
    """Without that, turns would begin on a version before it is promoted."""
    everturn.model.add(Script(match="early", text="On time."))
    new, port = f"v{uuid4().hex[:8]}", free_port()
    settings = {"EVERTURN_EAGER_WORKER": "true", "EVERTURN_API_PORT": str(port)}

    async with beside(everturn, EVERTURN, "api", EVERTURN_BUILD_ID=new, **settings) as api:
        await api.become_ready()
        async with (
            Client.signed_up(f"http://127.0.0.1:{port}") as early,
            early.ask("an early turn") as stream,
        ):
            await stream.to_end()

    assert versions_in(await history_of(everturn, stream.turn_id)) == {OLD}


@pytest.mark.nightly
async def test_a_worker_whose_code_is_not_that_of_a_history_says_so_and_harms_nothing(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(Script(match="misled", pieces=("Ha", "lf."), hold="never", hold_after=1))
    everturn.model.add(Script(match="misled", text="All of it."))

    async with client.ask("a misled turn") as stream:
        await stream.until_text("Ha")
        await everturn.stack.stop("worker-turns")
        async with worker_beside(everturn, module=CHANGED) as other:

            async def said() -> str:
                return other.output

            output = await eventually(said, lambda seen: "workflow_history_not_followed" in seen)
        await everturn.stack.start("worker-turns")
        await stream.to_end()

    (line,) = {
        line for line in output.splitlines() if "TMPRL1100" in line or "not_followed" in line
    }
    assert "docs/deploys.md" in line
    assert await assert_stream_is_whole(client, stream.turn_id, stream.events) == "All of it."


@pytest.mark.nightly
async def test_a_promotion_waits_for_a_temporal_that_restarts(everturn: ScriptedStack) -> None:
    versions = WorkerVersions(await everturn.temporal())
    await everturn.stack.stop("temporal")

    code, said = await deployment(everturn, "promote", f"--build-id={OLD}", "--wait=0")
    promoting = asyncio.create_task(versions.promote(OLD, within=timedelta(seconds=60)))
    await everturn.stack.start("temporal")

    assert code == 1
    assert said.startswith("Temporal can't be reached at ")
    assert len(said.splitlines()) == 1
    assert await promoting == OLD


@pytest.mark.nightly
async def test_a_version_whose_workers_poll_some_queues_is_not_promoted(
    everturn: ScriptedStack,
) -> None:
    new = f"v{uuid4().hex[:8]}"
    async with worker_beside(everturn, EVERTURN_BUILD_ID=new) as worker:
        code, said = await deployment(everturn, "promote", "--wait=0", EVERTURN_BUILD_ID=new)
        logged = worker.output
    listed, status = await deployment(everturn, "status", "--json")

    assert code == 1
    assert said.startswith(f"No worker of version {new} polls background, tools so far.")
    assert "worker_version_not_current" in logged
    assert listed == 0
    assert json.loads(status)["current"] == OLD
    assert new in {version["buildId"] for version in json.loads(status)["versions"]}


async def test_a_version_without_workers_is_not_promoted(everturn: ScriptedStack) -> None:
    versions = WorkerVersions(await everturn.temporal())

    with pytest.raises(NotReadyYetError, match="No worker of version nowhere has polled yet"):
        await versions.promote("nowhere", within=timedelta(0))
    with pytest.raises(DeploymentError, match="Temporal knows no version nowhere"):
        await versions.drain("nowhere", within=timedelta(0))
