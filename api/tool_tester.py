"""Owns having tools tried by workers from HTTP requests."""

import asyncio
from datetime import timedelta
from typing import Any, Final

import structlog
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from api.temporal_absence import patience, why_away
from schema.names import TASK_TIMEOUT, TOOLS_QUEUE
from schema.tools import ToolTrialReference
from workflows.try_tool import TryTool

_log = structlog.get_logger(__name__)

_QUEUEING_S: Final = 6.0
"""How long a trial may wait for a worker, beside what its tool may take."""


class ToolTester:
    """Has trials run, and waits for them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(self, trial: ToolTrialReference) -> bool:
        """Have a trial run to its end; False where no worker did so in time."""
        longest_s = trial.within_s + _QUEUEING_S
        try:
            async with patience():
                running = await self._start(trial, within=timedelta(seconds=longest_s))
            async with asyncio.timeout(longest_s):
                await running.result()
        except WorkflowFailureError as error:
            _log.warning("tool_trial_not_run", tool=trial.tool, cause=type(error).__name__)
            return False
        except (RPCError, RuntimeError, TimeoutError) as error:
            _log.warning("tool_trial_not_run", tool=trial.tool, cause=why_away(error))
            return False
        return True

    async def _start(
        self, trial: ToolTrialReference, *, within: timedelta
    ) -> WorkflowHandle[Any, Any]:
        return await self._client.start_workflow(
            TryTool.run,
            trial,
            id=f"try-{trial.trial_id}",
            task_queue=TOOLS_QUEUE,
            task_timeout=TASK_TIMEOUT,
            # A worker that comes back later must not do what nobody waits for.
            execution_timeout=within,
            static_summary=f"try {trial.tool}",
        )
