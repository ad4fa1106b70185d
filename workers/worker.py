"""Owns the Temporal workers: which queue runs what, and how much of it at once."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

import structlog
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.failures import FailureTranslation
from schema.names import BACKGROUND_QUEUE, SWEEP_SCHEDULE_ID, TOOLS_QUEUE, TURNS_QUEUE
from services.settings import Settings
from workers.composition.activities import Activities
from workflows.chat_turn import ChatTurn
from workflows.sweep_turns import SweepTurns

_log = structlog.get_logger(__name__)

_HEARTBEAT_THROTTLE: Final = timedelta(seconds=0.5)
_STICKY_TIMEOUT: Final = timedelta(seconds=5)
"""How long a dead worker's cached workflows wait for it before another takes them."""


def make_worker(client: Client, queue: str, activities: Activities, settings: Settings) -> Worker:
    """Return the worker of one queue, not yet running.

    Workflows run outside the SDK's sandbox, which costs half of a worker's CPU; tests replay
    every history inside it.
    """
    workflows: Sequence[type] = ()
    registered: list[Any] = []
    if queue == TURNS_QUEUE:
        workflows = (ChatTurn,)
        turns = activities.turns
        registered = [turns.prepare_turn, turns.call_model, turns.finish_turn]
        registered.append(activities.tools.run_tool)
    elif queue == TOOLS_QUEUE:
        registered = [activities.tools.run_tool]
    elif queue == BACKGROUND_QUEUE:
        workflows = (SweepTurns,)
        registered = [activities.sweep.find_stranded_turns]
    return Worker(
        client,
        task_queue=queue,
        workflows=workflows,
        activities=registered,
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[FailureTranslation()],
        max_concurrent_activities=settings.max_concurrent_model_calls,
        max_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        sticky_queue_schedule_to_start_timeout=_STICKY_TIMEOUT,
        graceful_shutdown_timeout=timedelta(seconds=settings.shutdown_grace_s),
    )


async def run_workers(
    client: Client,
    queues: Sequence[str],
    activities: Activities,
    *,
    settings: Settings,
    stop: asyncio.Event,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the workers of `queues` until `stop` is set; `on_ready` is called once they poll."""
    async with AsyncExitStack() as stack:
        for queue in queues:
            await stack.enter_async_context(make_worker(client, queue, activities, settings))
        if BACKGROUND_QUEUE in queues:
            await ensure_sweep(client, every=timedelta(seconds=settings.sweep_interval_s))
        _log.info("worker_ready", queues=list(queues))
        on_ready()
        await stop.wait()


async def ensure_sweep(client: Client, *, every: timedelta) -> None:
    """Make sure that the sweep is scheduled, as often as the settings say now."""
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            SweepTurns.run,
            id="sweep",
            task_queue=BACKGROUND_QUEUE,
            execution_timeout=timedelta(minutes=5),
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(
            overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=60)
        ),
    )
    try:
        await client.create_schedule(SWEEP_SCHEDULE_ID, schedule, trigger_immediately=True)
    except ScheduleAlreadyRunningError:
        await _replace_sweep(client, schedule)


async def _replace_sweep(client: Client, schedule: Schedule) -> None:
    try:
        await client.get_schedule_handle(SWEEP_SCHEDULE_ID).delete()
        await client.create_schedule(SWEEP_SCHEDULE_ID, schedule, trigger_immediately=True)
    except (RPCError, ScheduleAlreadyRunningError):
        _log.warning("sweep_schedule_kept")
