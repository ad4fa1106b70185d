"""Activities of tool calls and trials."""

import asyncio
from typing import Final
from weakref import WeakValueDictionary

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import names
from activities.heartbeats import TurnHeartbeats, heartbeats
from schema.ids import TurnId
from schema.tools import ToolTrialReference
from schema.turns import AskApprovalOutput, RunToolInput, RunToolOutput
from services.tools.trials import ToolTrialRuns
from services.turns.approvals import ToolApprovals
from services.turns.tool_attempts import ToolPostponedError
from services.turns.tool_calls import ToolCallGoneError, ToolCalls

_AT_ONCE: Final = 2
"""Local calls of a turn that run at a time: the turns of others get their share of the worker."""


class ToolActivities:
    """Runs tools, as local activities or from the queue `tools`."""

    def __init__(
        self, tool_calls: ToolCalls, approvals: ToolApprovals, heartbeats: TurnHeartbeats
    ) -> None:
        self._tool_calls = tool_calls
        self._approvals = approvals
        self._heartbeats = heartbeats
        self._gates: WeakValueDictionary[TurnId, asyncio.Semaphore] = WeakValueDictionary()

    @activity.defn(name=names.ASK_APPROVAL)
    async def ask_approval(self, call: RunToolInput) -> AskApprovalOutput:
        """Make a tool call wait for approval."""
        return await self._approvals.ask(call)

    @activity.defn(name=names.RUN_TOOL)
    async def run_tool(self, call: RunToolInput) -> RunToolOutput:
        """Run one tool call and store its outcome.

        Errors: ApplicationError `ToolPostponed` if the tool did not answer, which is retried;
        `TurnStopped`, final, if the call was deleted.
        """
        if activity.info().is_local:
            gate = self._gates.get(call.turn.turn_id) or asyncio.Semaphore(_AT_ONCE)
            self._gates[call.turn.turn_id] = gate
            async with gate:
                return await self._run(call)
        async with self._heartbeats.of(call.turn.turn_id):
            return await self._run(call)

    async def _run(self, call: RunToolInput) -> RunToolOutput:
        try:
            return await self._tool_calls.run(call)
        except ToolPostponedError as error:
            raise ApplicationError(
                str(error), type=names.TOOL_POSTPONED, next_retry_delay=error.retry_after
            ) from None
        except ToolCallGoneError as error:
            raise ApplicationError(
                str(error), type=names.TURN_STOPPED, non_retryable=True
            ) from None


class ToolTrialActivities:
    """Runs trials for the workflow `TryTool`."""

    def __init__(self, trials: ToolTrialRuns) -> None:
        self._trials = trials

    @activity.defn(name=names.TRY_TOOL)
    async def try_tool(self, trial: ToolTrialReference) -> None:
        """Run one trial and store its outcome."""
        async with heartbeats():
            await self._trials.run(trial)
