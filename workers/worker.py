"""Temporal workers: which queue runs what, and how much of it at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import timedelta
from typing import Any, Final

import structlog
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.worker import (
    PollerBehaviorSimpleMaximum,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerDeploymentConfig,
)

from activities.failures import FailureTranslation
from activities.heartbeats import HURRIED_INTERVAL_S
from schema.names import BACKGROUND_QUEUE, DEPLOYMENT, TOOLS_QUEUE, TURNS_QUEUE
from services.settings import Settings
from workers.composition.activities import Activities
from workers.deployment.versions import check_version, promote_dev
from workers.metrics import ProcessHealth
from workers.sweeper import Sweeper, WorkBatches
from workers.workflow_types import VERSIONING, WORKFLOWS

_log = structlog.get_logger(__name__)

_HEARTBEAT_THROTTLE: Final = timedelta(seconds=HURRIED_INTERVAL_S)
_POLLERS_FOR_NEW: Final = 0.5
"""Of all; with the SDK's own 5 and 0.2 one poller takes all new turns, one after the other."""
_STICKY_TIMEOUT: Final = timedelta(seconds=5)
"""How long a dead worker's cached workflows wait for it before another takes them."""


def make_worker(client: Client, queue: str, activities: Activities, settings: Settings) -> Worker:
    """Return the worker of one queue, not yet running.

    Workflows run outside the SDK's sandbox, which costs half of a worker's CPU; tests replay
    every history inside it.
    """
    registered: list[Any] = []
    if queue == TURNS_QUEUE:
        turns = activities.turns
        registered = [turns.prepare_turn, turns.begin_turn, turns.call_model]
        registered.append(turns.finish_turn)
        registered += [activities.tools.ask_approval, activities.tools.run_tool]
        registered.append(activities.callbacks.await_callback)
    elif queue == TOOLS_QUEUE:
        registered = [activities.tools.run_tool, activities.mcp.list_mcp_tools]
        registered.append(activities.trials.try_tool)
    elif queue == BACKGROUND_QUEUE:
        ingestion, sweep = activities.ingestion, activities.sweep
        registered = [sweep.find_stranded_turns, sweep.find_stranded_ingestions]
        registered += [sweep.erase_streams, sweep.deliver_decisions, sweep.sweep_files]
        registered.append(activities.callbacks.deliver_callbacks)
        registered += [ingestion.extract_document, ingestion.embed_passages]
        registered.append(ingestion.finish_ingestion)
        registered.append(activities.mcp.find_mcp_servers)
        reembedding = activities.reembedding
        registered += [reembedding.count_stale, reembedding.embed_batch]
        after_turn = activities.after_turn
        registered += [
            after_turn.extract_memories,
            after_turn.title_chat,
            after_turn.compact_chat,
            after_turn.do_works,
        ]
        registered.append(activities.alerts.deliver_alerts)
        registered.append(activities.mail.send_mail)
    pollers = PollerBehaviorSimpleMaximum(settings.temporal_pollers)
    return Worker(
        client,
        task_queue=queue,
        workflows=WORKFLOWS[queue],
        activities=registered,
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[FailureTranslation(activities.defects.report)],
        max_concurrent_activities=_slots(queue, settings),
        max_concurrent_workflow_tasks=settings.max_concurrent_workflow_tasks,
        workflow_task_poller_behavior=pollers,
        activity_task_poller_behavior=pollers,
        nonsticky_to_sticky_poll_ratio=_POLLERS_FOR_NEW,
        max_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
        sticky_queue_schedule_to_start_timeout=_STICKY_TIMEOUT,
        graceful_shutdown_timeout=timedelta(seconds=settings.shutdown_grace_s),
        deployment_config=_deployment(queue, settings),
    )


def _deployment(queue: str, settings: Settings) -> WorkerDeploymentConfig | None:
    """Return the version that the worker is one of; None leaves it without versions.

    Workflows don't name their behaviour themselves: the server refuses their tasks then where
    workers have no versions.
    """
    if settings.build_id is None:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(DEPLOYMENT, settings.build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VERSIONING[queue],
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
    health: ProcessHealth | None = None,
) -> None:
    """Run the workers of `queues` until `stop` is set and their running activities have ended.

    They are ready in `health` from when they poll until `stop`.
    """
    health = health or ProcessHealth()
    await check_version(client, settings.build_id)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(make_worker(client, queue, activities, settings))
            for queue in queues
        ]
        async with (
            _sweeping(client, activities, settings)
            if BACKGROUND_QUEUE in queues
            else (nullcontext())
        ):
            await promote_dev(client, settings.build_id)
            _log.info("worker_ready", queues=list(queues))
            health.is_ready = True
            await stop.wait()
            health.is_ready = False
        _log.info("worker_stopping", grace_s=settings.shutdown_grace_s)
        # All at once: one after the other they would go on polling, and each have its own grace.
        await asyncio.gather(*(worker.shutdown() for worker in workers))


@asynccontextmanager
async def _sweeping(
    client: Client, activities: Activities, settings: Settings
) -> AsyncIterator[None]:
    """Run the checks while the block runs."""
    sweeper = Sweeper(
        client,
        sweep=activities.sweep,
        reembedding=activities.reembedding,
        mcp=activities.mcp,
        alerts=activities.alerts,
        mail=activities.mail,
        settings=settings,
    )
    batches = WorkBatches(client, activities.after_turn, settings=settings)
    running = [asyncio.create_task(checks.run()) for checks in (sweeper, batches)]
    try:
        yield
    finally:
        for checks in running:
            checks.cancel()
        await asyncio.gather(*running, return_exceptions=True)
