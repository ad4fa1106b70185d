"""The tool calls of a step: approval, execution, and answers that come later."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.names import TOOLS_QUEUE
    from schema.turns import (
        AskApprovalOutput,
        RunToolInput,
        RunToolOutput,
        ToolCallKey,
        ToolCallReference,
        ToolCallStatus,
        TurnReference,
        TurnStatus,
        callback_activity_id,
    )
    from workflows.retries import LONGEST_TURN, PATIENT, QUICK
    from workflows.visibility import show_status

_LONGEST_ATTEMPT: Final = timedelta(minutes=10)
_STORING: Final = timedelta(minutes=2)
"""What an attempt may take besides its tool, e.g. during a short outage of the database."""
_PATCH: Final = "a-stop-is-not-overtaken"
"""Recorded turns that missed a cancellation before this check replay unchanged."""


class ToolCallRuns:
    """Runs the tool calls of one turn, and shows in its current details what they do.

    `failed` are the names of the tools that have failed.
    """

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self._decided: set[tuple[int, str]] = set()
        self._awaiting = 0
        self._shown: list[str] = []

    def decided(self, call: ToolCallKey) -> None:
        """Record that a call has been decided."""
        self._decided.add((call.step, call.tool_call_id))

    async def run_all(
        self, turn: TurnReference, step: int, calls: tuple[ToolCallReference, ...]
    ) -> None:
        """Run the calls of a step in parallel; a failure doesn't stop the others."""
        await asyncio.gather(*(self._run(turn, step, call) for call in calls))

    async def _run(self, turn: TurnReference, step: int, call: ToolCallReference) -> None:
        """Run a call to its end; its outcome is stored, whatever happens."""
        check_cancelled()
        run = RunToolInput(turn=turn, step=step, tool_call_id=call.id, name=call.name)
        try:
            if call.needs_approval:
                await self._await_approval(run)
            with self._showing(f"running {_named(run)}"):
                ran = await _execute(run, call)
            if ran.answers_within_s is not None:
                check_cancelled()
                with self._showing(f"waiting for the answer of {_named(run)}"):
                    ran = await _await_callback(run, within_s=ran.answers_within_s)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            ran = await _execute_at_once(run.model_copy(update={"gave_up": True}))
        if ran.status is ToolCallStatus.FAILED:
            self.failed.add(call.name)

    async def _await_approval(self, run: RunToolInput) -> None:
        """Wait for a decision or the end of the time for it; running the call finds out which."""
        asked: AskApprovalOutput = await workflow.execute_local_activity(
            names.ASK_APPROVAL,
            run,
            result_type=AskApprovalOutput,
            summary=f"ask for approval · {_named(run)}",
            start_to_close_timeout=timedelta(seconds=30),
            schedule_to_close_timeout=LONGEST_TURN,
            retry_policy=QUICK,
        )
        if asked.within_s is None:
            return
        check_cancelled()
        until = workflow.now() + timedelta(seconds=asked.within_s)
        awaited = f"approval of {_named(run)}, until {until:%Y-%m-%d %H:%M} UTC"
        key = (run.step, run.tool_call_id)
        self._awaiting += 1
        if self._awaiting == 1:
            show_status(TurnStatus.AWAITING_APPROVAL)
        with self._showing(f"waiting for {awaited}"):
            try:
                await workflow.wait_condition(
                    lambda: key in self._decided, timeout=asked.within_s, timeout_summary=awaited
                )
            except TimeoutError:
                workflow.logger.info("The approval of a tool call has expired")
        self._awaiting -= 1
        if self._awaiting == 0:
            show_status(TurnStatus.RUNNING)

    @contextmanager
    def _showing(self, what: str) -> Iterator[None]:
        """Show what a call does in the turn's current details while the block runs."""
        self._shown.append(what)
        workflow.set_current_details("\n".join(self._shown))
        try:
            yield
        finally:
            self._shown.remove(what)
            workflow.set_current_details("\n".join(self._shown))


def _named(run: RunToolInput) -> str:
    return f"{run.name} · step {run.step}"


async def _execute(run: RunToolInput, call: ToolCallReference) -> RunToolOutput:
    """Run a tool where it belongs: at once, or on the queue for slow tools."""
    if call.instant:
        return await _execute_at_once(run)
    attempt = _LONGEST_ATTEMPT
    if call.timeout_s is not None:
        attempt = timedelta(seconds=call.timeout_s) + _STORING
    queued: RunToolOutput = await workflow.execute_activity(
        names.RUN_TOOL,
        run,
        result_type=RunToolOutput,
        task_queue=TOOLS_QUEUE,
        summary=_named(run),
        start_to_close_timeout=attempt,
        schedule_to_close_timeout=max(LONGEST_TURN, attempt),
        heartbeat_timeout=timedelta(seconds=5),
        retry_policy=PATIENT,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )
    return queued


async def _execute_at_once(run: RunToolInput) -> RunToolOutput:
    ran: RunToolOutput = await workflow.execute_local_activity(
        names.RUN_TOOL,
        run,
        result_type=RunToolOutput,
        summary=_named(run),
        start_to_close_timeout=timedelta(seconds=30),
        schedule_to_close_timeout=LONGEST_TURN,
        retry_policy=QUICK,
    )
    return ran


async def _await_callback(run: RunToolInput, *, within_s: float) -> RunToolOutput:
    """Wait for a tool that answers later; its callback completes the activity."""
    answered: RunToolOutput = await workflow.execute_activity(
        names.AWAIT_CALLBACK,
        run,
        result_type=RunToolOutput,
        activity_id=callback_activity_id(run.step, run.tool_call_id),
        summary=f"answer of {_named(run)}",
        schedule_to_close_timeout=timedelta(seconds=max(within_s, 1.0)),
        retry_policy=QUICK,
    )
    return answered


def check_cancelled() -> None:
    """Raise if the workflow was cancelled while an activity was just ending.

    Temporal cancels what a workflow waits for. If that is an activity whose cancellation is
    awaited, and it completes by itself, its result is returned and the cancellation is lost.
    Errors: asyncio.CancelledError.
    """
    if workflow.cancellation_reason() is not None and workflow.patched(_PATCH):
        raise asyncio.CancelledError
