"""The API's only access to Temporal: starts workflows, cancels, signals and waits for them.

An unavailable Temporal is not an error for what is stored already: a turn, an ingestion, a decision
or a callback is picked up later by the sweep.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import structlog
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.namespace import find_problem
from activities.turn_workflows import TurnWorkflows
from api.start_pace import StartPace
from schema.ids import DocumentId, TurnId, UserId, ingestion_workflow_id, turn_workflow_id
from schema.ingestion import DocumentVersionReference
from schema.mcp_servers import RefreshMcpServerInput, refresh_workflow_id
from schema.names import BACKGROUND_QUEUE, TASK_TIMEOUT, TOOLS_QUEUE, TURNS_QUEUE
from schema.tool_callbacks import AnsweredCall
from schema.tools import ToolTrialReference
from schema.turns import DecidedToolCall, ToolCallKey, TurnReference
from services.turns.acceptance import Accepted
from workflows.chat_turn import ChatTurn
from workflows.child_workflows import share_of
from workflows.ingest_document import (
    IngestDocument,
    ingestion_attributes,
    ingestion_details,
    ingestion_summary,
)
from workflows.mcp_servers import RefreshMcpServer
from workflows.try_tool import TryTool
from workflows.visibility import turn_attributes, turn_details, turn_memo, turn_summary

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_TEMPORAL_TIMEOUT_S: Final = 3.0
"""For all attempts together: Temporal's client retries for ten seconds by itself."""
_HEALTH_TIMEOUT_S: Final = 0.8
"""Probes of readiness wait a second."""
_COMPLETE_FOR_S: Final = 60.0
_UNAVAILABLE: Final = (RPCError, RuntimeError, TimeoutError)
_WRONG_SETUP: Final = frozenset(
    {
        *(RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.NOT_FOUND),
        *(RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED),
    }
)
_STARTS_OF_A_USER: Final = 2
"""At a time: hundreds at once would keep Temporal from starting those of others."""
_HELD_PART: Final = 0.3
_HELD_AT_MOST: Final = timedelta(seconds=3)
"""How long a turn that is to begin later is held here, so that Temporal doesn't get all at once;
the sweep looks for turns that are older."""
_AT_ONCE: Final = timedelta()
_REFRESH_TIMEOUT: Final = timedelta(minutes=5)
"""No worker ran the refresh within this time; the next request starts a new one."""
_QUEUEING_S: Final = 6.0
"""How long a trial may wait for a worker, in addition to its tool's timeout."""


class RefreshProgress(StrEnum):
    """The state of a refresh when the request stops waiting."""

    DONE = "done"
    RUNNING = "running"
    UNAVAILABLE = "unavailable"


class TemporalGateway:
    """Starts and reaches workflows on behalf of requests.

    While `is_eager`, a worker in this process runs the first task of a turn. `public_url` is where
    operators reach the API. `on_cancel` is called when Temporal has been asked to cancel a turn.
    Units: `refresh_wait_s` is how long a request waits for a refresh.
    """

    def __init__(
        self,
        client: Client,
        *,
        eager: bool,
        pace: StartPace | None = None,
        public_url: str | None = None,
        on_cancel: Callable[[TurnId], Awaitable[None]] | None = None,
        refresh_wait_s: float = 36.0,
    ) -> None:
        self._client = client
        self._turns = TurnWorkflows(client)
        self._pace = pace or StartPace()
        self._public_url = public_url
        self._on_cancel = on_cancel
        self.is_eager = eager
        self._refresh_wait_s = refresh_wait_s
        self._starts: WeakValueDictionary[UserId, asyncio.Semaphore] = WeakValueDictionary()
        self._background: set[asyncio.Future[Any]] = set()
        self._problem: str | None = None
        self._complete_until = float("-inf")

    async def find_problem(self, *, within_s: float = _HEALTH_TIMEOUT_S) -> str | None:
        """Return what keeps turns from running, as a sentence; None if nothing does.

        What changes is logged. A namespace that was complete is looked at once a minute.
        """
        try:
            async with asyncio.timeout(within_s):
                problem = await self._look_for_problem()
        except _UNAVAILABLE as error:
            problem = f"Temporal can't be reached ({unavailable_cause(error)})."
        if problem != self._problem:
            if problem is None:
                _log.info("temporal_problem_solved")
            else:
                _log.error("temporal_problem", problem=problem)
            self._problem = problem
        return problem

    async def _look_for_problem(self) -> str | None:
        clock = asyncio.get_running_loop().time
        if clock() < self._complete_until:
            healthy = await self._client.service_client.check_health()
            return None if healthy else "Temporal is not serving."
        problem = await find_problem(self._client)
        if problem is None:
            self._complete_until = clock() + _COMPLETE_FOR_S
        return problem

    def find_problem_in_background(self) -> None:
        """Log what keeps turns from running, if anything does, without waiting for Temporal."""
        self._run_in_background(self.find_problem(within_s=_TEMPORAL_TIMEOUT_S))

    def dispatch_turn(self, accepted: Accepted) -> Awaitable[bool]:
        """Start the turn, and cancel the one that it interrupts, even if the client disconnects.

        The result is False if the sweep must start the turn.
        """
        return self._run_in_background(self._dispatch_turn(accepted))

    async def _dispatch_turn(self, accepted: Accepted) -> bool:
        if accepted.interrupts is not None:
            await self.cancel_turn(accepted.interrupts)
        if not accepted.starts_now:
            return True
        user_id = accepted.reference.user_id
        delay = self._pace.delay(user_id)
        held = min(delay * _HELD_PART, _HELD_AT_MOST)
        if held:
            await asyncio.sleep(held.total_seconds())
        share = self._starts.get(user_id) or asyncio.Semaphore(_STARTS_OF_A_USER)
        self._starts[user_id] = share
        async with share:
            return await self.start_turn(accepted.reference, delay=delay - held)

    async def start_turn(self, turn: TurnReference, *, delay: timedelta = _AT_ONCE) -> bool:
        """Start the turn's workflow, which begins after `delay`; False if Temporal is unavailable.

        Idempotency: a turn has one workflow, however often it is started.
        """
        memo = turn_memo(turn, self._public_url)
        try:
            async with temporal_timeout():
                await self._client.start_workflow(
                    ChatTurn.run,
                    turn,
                    id=turn_workflow_id(turn.turn_id),
                    task_queue=TURNS_QUEUE,
                    task_timeout=TASK_TIMEOUT,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    search_attributes=turn_attributes(turn),
                    static_summary=turn_summary(turn),
                    static_details=turn_details(turn, memo),
                    memo=memo,
                    priority=share_of(turn.user_id),
                    request_eager_start=self.is_eager and not delay,
                    start_delay=delay or None,
                )
        except WorkflowAlreadyStartedError:
            return True
        except _UNAVAILABLE as error:
            _log_postponed_start(turn.turn_id, error)
            return False
        return True

    async def cancel_turn(self, turn_id: TurnId) -> bool:
        """Cancel the turn's workflow; False if there is none, or Temporal is unavailable."""
        try:
            async with temporal_timeout():
                is_requested = await self._turns.cancel(turn_id)
        except _UNAVAILABLE as error:
            cause = unavailable_cause(error)
            _log.warning("turn_cancel_postponed", turn_id=str(turn_id), cause=cause)
            return False
        if is_requested and self._on_cancel is not None:
            await self._on_cancel(turn_id)
        return is_requested

    async def cancel_turns(self, turn_ids: Sequence[TurnId]) -> None:
        """Cancel the workflows of deleted turns."""
        await asyncio.gather(*map(self.cancel_turn, turn_ids))

    async def signal_decision(self, call: DecidedToolCall) -> None:
        """Signal an approval or a denial to the call's turn; repeating it is harmless."""
        key = ToolCallKey(step=call.step, tool_call_id=call.tool_call_id)
        try:
            async with temporal_timeout():
                await self._turns.signal_decision(call.turn_id, key)
        except _UNAVAILABLE as error:
            cause = unavailable_cause(error)
            _log.warning("decision_signal_postponed", turn_id=str(call.turn_id), cause=cause)

    async def complete_callback(self, call: AnsweredCall) -> bool:
        """Complete the activity that waits for a tool's callback; False if none waits.

        A turn that starts to wait later finds the answer in the database.
        """
        try:
            async with temporal_timeout():
                return await self._turns.complete_callback(call)
        except _UNAVAILABLE as error:
            cause = unavailable_cause(error)
            _log.warning("callback_postponed", turn_id=str(call.turn_id), cause=cause)
            return False

    async def start_ingestion(self, document_id: DocumentId, number: int, *, owner: UserId) -> bool:
        """Start the ingestion of a document's version; False if Temporal is unavailable.

        Idempotency: a version is ingested once at a time; a finished ingestion changes nothing.
        """
        version = DocumentVersionReference(document_id=document_id, number=number, user_id=owner)
        workflow_id = ingestion_workflow_id(document_id, number)
        try:
            async with temporal_timeout():
                await self._client.start_workflow(
                    IngestDocument.run,
                    version,
                    id=workflow_id,
                    task_queue=BACKGROUND_QUEUE,
                    task_timeout=TASK_TIMEOUT,
                    search_attributes=ingestion_attributes(version),
                    static_summary=ingestion_summary(version),
                    static_details=ingestion_details(version),
                    priority=share_of(owner),
                )
        except WorkflowAlreadyStartedError:
            return True
        except _UNAVAILABLE as error:
            cause = unavailable_cause(error)
            _log.warning("ingestion_postponed", workflow_id=workflow_id, cause=cause)
            return False
        return True

    async def refresh_server(self, server: RefreshMcpServerInput) -> RefreshProgress:
        """List an MCP server's tools, and wait for the result as long as a request may take.

        Idempotency: a configuration has one refresh at a time, which all requests share.
        """
        handle = await self._start_refresh(server)
        if handle is None:
            return RefreshProgress.UNAVAILABLE
        try:
            async with asyncio.timeout(self._refresh_wait_s):
                await handle.result()
        except TimeoutError:
            return RefreshProgress.RUNNING
        except (WorkflowFailureError, RPCError) as error:
            _log.warning("mcp_refresh_failed", server=server.name, cause=type(error).__name__)
            return RefreshProgress.UNAVAILABLE
        return RefreshProgress.DONE

    def refresh_server_in_background(self, server: RefreshMcpServerInput) -> None:
        """List an MCP server's tools without waiting; an administrator can request it again."""
        self._run_in_background(self._start_refresh(server))

    async def _start_refresh(
        self, server: RefreshMcpServerInput
    ) -> WorkflowHandle[Any, Any] | None:
        """Return the running refresh, or None if Temporal is unavailable."""
        try:
            async with temporal_timeout():
                return await self._client.start_workflow(
                    RefreshMcpServer.run,
                    server,
                    id=refresh_workflow_id(server),
                    task_queue=TOOLS_QUEUE,
                    task_timeout=TASK_TIMEOUT,
                    execution_timeout=_REFRESH_TIMEOUT,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    static_summary=f"MCP server {server.name}",
                )
        except _UNAVAILABLE as error:
            _log.warning("mcp_refresh_not_started", cause=unavailable_cause(error))
            return None

    async def run_trial(self, trial: ToolTrialReference) -> bool:
        """Run a trial of a tool to its end; False if no worker finished it in time."""
        timeout_s = trial.within_s + _QUEUEING_S
        try:
            async with temporal_timeout():
                running = await self._start_trial(trial, within=timedelta(seconds=timeout_s))
            async with asyncio.timeout(timeout_s):
                await running.result()
        except WorkflowFailureError as error:
            _log.warning("tool_trial_not_run", tool=trial.tool, cause=type(error).__name__)
            return False
        except _UNAVAILABLE as error:
            _log.warning("tool_trial_not_run", tool=trial.tool, cause=unavailable_cause(error))
            return False
        return True

    async def _start_trial(
        self, trial: ToolTrialReference, *, within: timedelta
    ) -> WorkflowHandle[Any, Any]:
        return await self._client.start_workflow(
            TryTool.run,
            trial,
            id=f"try-{trial.trial_id}",
            task_queue=TOOLS_QUEUE,
            task_timeout=TASK_TIMEOUT,
            # A worker that comes back later must not run a tool whose result is not awaited.
            execution_timeout=within,
            static_summary=f"try {trial.tool}",
        )

    def _run_in_background(self, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _log_postponed_start(turn_id: TurnId, error: RPCError | RuntimeError | TimeoutError) -> None:
    """Log why a turn could not be started: an outage passes, what is set up wrong does not."""
    ids = {"turn_id": str(turn_id), "cause": unavailable_cause(error)}
    if isinstance(error, RPCError) and error.status in _WRONG_SETUP:
        _log.error("turn_start_refused", **ids, reason=error.message)
    else:
        _log.warning("turn_start_postponed", **ids)


def temporal_timeout() -> asyncio.Timeout:
    """Return the time limit for a call to Temporal; exceeding it raises TimeoutError."""
    return asyncio.timeout(_TEMPORAL_TIMEOUT_S)


def unavailable_cause(error: RPCError | RuntimeError | TimeoutError) -> str:
    """Return why a call did not reach Temporal; re-raise an error of our own.

    A client that has not connected yet raises a bare RuntimeError.
    """
    if isinstance(error, RPCError):
        return error.status.name
    if isinstance(error, TimeoutError):
        return "TIMED_OUT"
    if "Failed client connect" not in str(error):
        raise error
    return "NOT_CONNECTED"
