"""The checks of a background worker: they start workflows where there is work for them.

    Sweeper       what was accepted and not started, alerts, mails, re-embedding, MCP servers
    WorkBatches   works that are due after turns

Every background worker checks, so none is missed when one dies. They need no leader: workflow ids
are fixed, so that of several workers which start a sweep at once only one gets through. An idle
system runs no workflows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from math import ceil
from typing import Final

import structlog
from prometheus_client import Counter, Gauge
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.after_turn import AfterTurnActivities
from activities.alerts import AlertActivities, start_delivery
from activities.knowledge import ReembeddingActivities
from activities.mail import MailActivities, start_mail
from activities.mcp import McpActivities
from activities.sweep import SweepActivities
from schema.ids import work_batch_id
from schema.names import (
    BACKGROUND_QUEUE,
    DELIVER_ALERTS,
    REEMBED,
    SEND_MAIL,
    SWEEP,
    SWEEP_MCP_SERVERS,
    TASK_TIMEOUT,
    WORK_BATCH,
    Work,
)
from schema.sweeps import SweepInput
from services.database import DatabaseUnavailableError
from services.settings import Settings
from workflows.visibility import sweep_memo

_log = structlog.get_logger(__name__)

SWEEP_ID: Final = "sweep"
REEMBED_ID: Final = "reembed"

RETIRED_SCHEDULES: Final = (
    "everturn-sweep",
    "everturn-erasure-sweep",
    "everturn-ingestion-sweep",
    "everturn-callback-delivery",
    "everturn-reembed",
    "everturn-mcp-sweep",
)
"""Schedules of earlier versions; they started workflows whether anything waited or not."""

_CHECKS_PER_REEMBEDDING: Final = 4
"""What was stored while the embedder was unavailable may wait a minute for its vector."""
_PAUSE_AFTER_FAILURE: Final = timedelta(hours=1)
"""A re-embedding that failed for a defect, ours or the embedder's, would fail and cost again."""
_WORKS_PER_BATCH: Final = 32
_MOST_BATCHES: Final = 8
"""How many run at a time, spread over the workers; each does a few dozen works at once."""
_SWEEP_TIMEOUT: Final = timedelta(minutes=5)
_RPC_TIMEOUT: Final = timedelta(seconds=10)

_LAST_CHECK: Final = Gauge(
    "everturn_sweep_last_check_timestamp_seconds",
    "When this worker last checked whether anything is to be swept.",
)
_TURNS: Final = Gauge(
    "everturn_turns_unfinished",
    "Turns that have not ended, by status; of the whole installation, at the last check.",
    ("status",),
)
_UNSTARTED: Final = Gauge(
    "everturn_oldest_unstarted_turn_seconds",
    "Age of the oldest turn that could run and has not begun, at the last check.",
)
_APPROVALS: Final = Gauge(
    "everturn_approvals_waiting", "Tool calls that await approval, at the last check."
)
_WORKS: Final = Gauge(
    "everturn_works_waiting",
    "Works after turns that are not done; of the whole installation, at the last check.",
    ("work",),
)
_OLDEST_WORK: Final = Gauge(
    "everturn_oldest_work_seconds", "Age of the oldest work that is not done, at the last check."
)
_CHECKS_FAILED: Final = Counter(
    "everturn_sweep_checks_failed",
    "Checks that failed since the database or Temporal was unavailable.",
)
_STARTED: Final = Counter(
    "everturn_sweeps_started", "Sweeping workflows started by this worker.", ("workflow",)
)
for _workflow in (SWEEP, DELIVER_ALERTS, SEND_MAIL, REEMBED, SWEEP_MCP_SERVERS, WORK_BATCH):
    _STARTED.labels(_workflow)


class Sweeper:
    """Checks on a timer whether something waits, and starts the workflow that handles it."""

    def __init__(
        self,
        client: Client,
        *,
        sweep: SweepActivities,
        reembedding: ReembeddingActivities,
        mcp: McpActivities,
        alerts: AlertActivities,
        mail: MailActivities,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._sweep = sweep
        self._reembedding = reembedding
        self._mcp = mcp
        self._alerts = alerts
        self._mail = mail
        self._interval_s = settings.sweep_interval_s
        self._mcp_refresh_s = settings.mcp_refresh_s
        self._public_url = settings.public_url
        self._clock = clock
        # A refresh may start a process for each server: no reason to do that whenever a worker
        # starts, so the first one comes with the next period.
        self._mcp_period = self._period_now()
        self._checks = 0
        self._are_schedules_deleted = False

    async def run(self) -> None:
        """Check until cancelled, at once and then every interval, through outages too."""
        while True:
            await self.check()
            await asyncio.sleep(self._interval_s)

    async def check(self) -> None:
        """Start what is due. Failures are logged and left to the next check."""
        steps: tuple[Callable[[], Awaitable[None]], ...] = (
            self._delete_retired_schedules,
            self._count_turns,
            self._start_sweep,
            self._start_alert_delivery,
            self._start_mails,
            self._start_reembedding,
            self._start_mcp_refresh,
        )
        has_failed = False
        for step in steps:
            try:
                await step()
            except (DatabaseUnavailableError, RPCError) as error:
                has_failed = True
                _log.warning("sweep_check_failed", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 -- the net must not end with one bad check
                has_failed = True
                _log.error("sweep_check_failed", exc_info=error)
        self._checks += 1
        if has_failed:
            _CHECKS_FAILED.inc()
        else:
            _LAST_CHECK.set(time.time())

    async def _count_turns(self) -> None:
        unfinished = await self._sweep.unfinished_turns()
        _TURNS.labels("queued").set(unfinished.queued)
        _TURNS.labels("running").set(unfinished.running)
        _TURNS.labels("awaiting_approval").set(unfinished.awaiting_approval)
        _UNSTARTED.set(unfinished.unstarted_s)
        _APPROVALS.set(unfinished.approvals)

    async def _start_sweep(self) -> None:
        parts = await self._sweep.parts_due()
        if not parts:
            return
        await self._client.start_workflow(
            SWEEP,
            SweepInput(parts=parts),
            id=SWEEP_ID,
            task_queue=BACKGROUND_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            execution_timeout=_SWEEP_TIMEOUT,
            static_summary=f"sweep · {', '.join(parts)}",
            memo=sweep_memo(self._public_url),
            rpc_timeout=_RPC_TIMEOUT,
        )
        _STARTED.labels(SWEEP).inc()

    async def _start_alert_delivery(self) -> None:
        if await self._alerts.is_any_due():
            await start_delivery(self._client)
            _STARTED.labels(DELIVER_ALERTS).inc()

    async def _start_mails(self) -> None:
        for mail in await self._mail.unstarted():
            await start_mail(self._client, mail)
            _STARTED.labels(SEND_MAIL).inc()

    async def _start_reembedding(self) -> None:
        if self._checks % _CHECKS_PER_REEMBEDDING or not await self._reembedding.is_any_stale():
            return
        if await self._has_failed_lately(REEMBED_ID):
            return
        await self._client.start_workflow(
            REEMBED,
            id=REEMBED_ID,
            task_queue=BACKGROUND_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="re-embedding",
            rpc_timeout=_RPC_TIMEOUT,
        )
        _STARTED.labels(REEMBED).inc()

    async def _has_failed_lately(self, workflow_id: str) -> bool:
        try:
            handle = self._client.get_workflow_handle(workflow_id)
            last = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        if last.status is not WorkflowExecutionStatus.FAILED or last.close_time is None:
            return False
        return last.close_time.timestamp() > self._clock() - _PAUSE_AFTER_FAILURE.total_seconds()

    async def _start_mcp_refresh(self) -> None:
        """Start the refresh of all MCP servers once in each period, whichever worker is first."""
        period = self._period_now()
        if period == self._mcp_period:
            return
        if await self._mcp.is_any_configured():
            with suppress(WorkflowAlreadyStartedError):
                await self._client.start_workflow(
                    SWEEP_MCP_SERVERS,
                    id=mcp_sweep_id(period),
                    task_queue=BACKGROUND_QUEUE,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    static_summary="refresh of all MCP servers",
                    rpc_timeout=_RPC_TIMEOUT,
                )
                _STARTED.labels(SWEEP_MCP_SERVERS).inc()
        self._mcp_period = period

    async def _delete_retired_schedules(self) -> None:
        if self._are_schedules_deleted:
            return
        for schedule_id in RETIRED_SCHEDULES:
            try:
                handle = self._client.get_schedule_handle(schedule_id)
                await handle.delete(rpc_timeout=_RPC_TIMEOUT)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
        self._are_schedules_deleted = True

    def _period_now(self) -> int:
        return int(self._clock() // self._mcp_refresh_s)


class WorkBatches:
    """Checks every second whether works are due after turns, and starts batches that do them."""

    def __init__(
        self, client: Client, after_turn: AfterTurnActivities, *, settings: Settings
    ) -> None:
        self._client = client
        self._after_turn = after_turn
        self._interval_s = settings.works_interval_s
        self._has_failed = False

    async def run(self) -> None:
        """Check until cancelled, through outages too."""
        while True:
            await self.check()
            await asyncio.sleep(self._interval_s)

    async def check(self) -> None:
        """Start as many batches as what is due needs. Of failures, the first is logged."""
        try:
            await self._start()
        except (DatabaseUnavailableError, RPCError) as error:
            if not self._has_failed:
                _log.warning("works_check_failed", error=type(error).__name__)
            self._has_failed = True
            _CHECKS_FAILED.inc()
        except Exception as error:  # noqa: BLE001 -- the next check may pass
            _log.error("works_check_failed", exc_info=error)
            _CHECKS_FAILED.inc()
        else:
            self._has_failed = False

    async def _start(self) -> None:
        waiting = await self._after_turn.waiting()
        counts = {each.work: each.waiting for each in waiting}
        for work in Work:
            _WORKS.labels(work.value).set(counts.get(work, 0))
        _OLDEST_WORK.set(max((each.oldest_s for each in waiting), default=0))
        due = sum(each.due for each in waiting)
        for batch in range(min(_MOST_BATCHES, ceil(due / _WORKS_PER_BATCH))):
            await self._client.start_workflow(
                WORK_BATCH,
                id=work_batch_id(batch),
                task_queue=BACKGROUND_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=TASK_TIMEOUT,
                static_summary="works after turns",
                rpc_timeout=_RPC_TIMEOUT,
            )
            _STARTED.labels(WORK_BATCH).inc()


def mcp_sweep_id(period: int) -> str:
    """Return the workflow id of the refresh of all MCP servers in a period."""
    return f"mcp-sweep-{period}"
