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
from schema.names import (
    BACKGROUND_QUEUE,
    CALLBACK_DELIVERY_SCHEDULE_ID,
    DELIVER_CALLBACKS,
    ERASURE_SWEEP_SCHEDULE_ID,
    INGESTION_SWEEP_SCHEDULE_ID,
    MCP_SWEEP_SCHEDULE_ID,
    REEMBED,
    REEMBED_SCHEDULE_ID,
    SWEEP_ERASURES,
    SWEEP_INGESTIONS,
    SWEEP_MCP_SERVERS,
    SWEEP_SCHEDULE_ID,
    SWEEP_TURNS,
    TOOLS_QUEUE,
    TURNS_QUEUE,
)
from services.settings import Settings
from workers.composition.activities import Activities
from workflows.chat_turn import ChatTurn
from workflows.deliver_callbacks import DeliverCallbacks
from workflows.ingest_document import IngestDocument
from workflows.reembed import Reembed
from workflows.refresh_mcp_server import RefreshMcpServer
from workflows.sweep_erasures import SweepErasures
from workflows.sweep_ingestions import SweepIngestions
from workflows.sweep_mcp_servers import SweepMcpServers
from workflows.sweep_turns import SweepTurns
from workflows.try_tool import TryTool

_log = structlog.get_logger(__name__)

_HEARTBEAT_THROTTLE: Final = timedelta(seconds=0.5)
_STICKY_TIMEOUT: Final = timedelta(seconds=5)
"""How long a dead worker's cached workflows wait for it before another takes them."""
_SWEEPS_PER_REEMBEDDING: Final = 4
"""What was stored while the embedder was away may wait a minute for its vector."""


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
        registered += [activities.tools.ask_approval, activities.tools.run_tool]
        registered.append(activities.callbacks.await_callback)
    elif queue == TOOLS_QUEUE:
        workflows = (RefreshMcpServer, TryTool)
        registered = [activities.tools.run_tool, activities.mcp.list_mcp_tools]
        registered.append(activities.trials.try_tool)
    elif queue == BACKGROUND_QUEUE:
        workflows = (
            *(SweepTurns, SweepErasures, DeliverCallbacks),
            *(IngestDocument, SweepIngestions, Reembed, SweepMcpServers),
        )
        ingestion = activities.ingestion
        registered = [activities.sweep.find_stranded_turns, activities.erasure.erase_streams]
        registered += [ingestion.extract_document, ingestion.embed_passages]
        registered.append(ingestion.finish_ingestion)
        registered.append(activities.ingestion_sweep.find_stranded_ingestions)
        registered.append(activities.callbacks.deliver_callbacks)
        registered.append(activities.decisions.tell_decisions)
        registered.append(activities.mcp.find_mcp_servers)
        reembedding = activities.reembedding
        registered += [reembedding.count_stale, reembedding.embed_batch]
    return Worker(
        client,
        task_queue=queue,
        workflows=workflows,
        activities=registered,
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[FailureTranslation()],
        max_concurrent_activities=_slots(queue, settings),
        max_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        sticky_queue_schedule_to_start_timeout=_STICKY_TIMEOUT,
        graceful_shutdown_timeout=timedelta(seconds=settings.shutdown_grace_s),
    )


def _slots(queue: str, settings: Settings) -> int:
    if queue == TOOLS_QUEUE:
        return settings.max_concurrent_tool_calls
    return settings.max_concurrent_model_calls


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
            await ensure_sweeps(client, settings)
        _log.info("worker_ready", queues=list(queues))
        on_ready()
        await stop.wait()


async def ensure_sweeps(client: Client, settings: Settings) -> None:
    """Make sure that the sweeps are scheduled, as often as the settings say now."""
    every = timedelta(seconds=settings.sweep_interval_s)
    for schedule_id, workflow, workflow_id in (
        (SWEEP_SCHEDULE_ID, SWEEP_TURNS, "sweep"),
        (ERASURE_SWEEP_SCHEDULE_ID, SWEEP_ERASURES, "erasure-sweep"),
        (INGESTION_SWEEP_SCHEDULE_ID, SWEEP_INGESTIONS, "ingestion-sweep"),
        (CALLBACK_DELIVERY_SCHEDULE_ID, DELIVER_CALLBACKS, "callback-delivery"),
    ):
        await _ensure_schedule(client, schedule_id, _sweeping(workflow, workflow_id, every))
    reembedding = _recurring(REEMBED, "reembed", every * _SWEEPS_PER_REEMBEDDING)
    await _ensure_schedule(client, REEMBED_SCHEDULE_ID, reembedding)
    listing = _recurring(SWEEP_MCP_SERVERS, "mcp-sweep", timedelta(seconds=settings.mcp_refresh_s))
    # Each listing may start a process; that is no reason to start them all whenever a worker is.
    await _ensure_schedule(client, MCP_SWEEP_SCHEDULE_ID, listing, at_once=False)


def _sweeping(workflow: str, workflow_id: str, every: timedelta) -> Schedule:
    return _recurring(workflow, workflow_id, every, timeout=timedelta(minutes=5))


def _recurring(
    workflow: str, workflow_id: str, every: timedelta, *, timeout: timedelta | None = None
) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            workflow, id=workflow_id, task_queue=BACKGROUND_QUEUE, execution_timeout=timeout
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(
            overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=60)
        ),
    )


async def _ensure_schedule(
    client: Client, schedule_id: str, schedule: Schedule, *, at_once: bool = True
) -> None:
    try:
        await client.create_schedule(schedule_id, schedule, trigger_immediately=at_once)
    except ScheduleAlreadyRunningError:
        await _replace_schedule(client, schedule_id, schedule, at_once=at_once)


async def _replace_schedule(
    client: Client, schedule_id: str, schedule: Schedule, *, at_once: bool
) -> None:
    try:
        await client.get_schedule_handle(schedule_id).delete()
        await client.create_schedule(schedule_id, schedule, trigger_immediately=at_once)
    except (RPCError, ScheduleAlreadyRunningError):
        _log.warning("sweep_schedule_kept", schedule_id=schedule_id)
