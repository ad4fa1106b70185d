"""Owns having tools tried by workers from HTTP requests."""

import asyncio
from datetime import timedelta
from typing import Final

import structlog
from temporalio.client import Client, WorkflowFailureError
from temporalio.service import RPCError

from schema.names import TASK_TIMEOUT, TOOLS_QUEUE
from schema.tools import ToolTrialReference
from workflows.try_tool import TryTool

_log = structlog.get_logger(__name__)

_PATIENCE: Final = timedelta(seconds=3)
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
            async with asyncio.timeout(longest_s):
                await self._client.execute_workflow(
                    TryTool.run,
                    trial,
                    id=f"try-{trial.trial_id}",
                    task_queue=TOOLS_QUEUE,
                    task_timeout=TASK_TIMEOUT,
                    # A worker that comes back later must not do what nobody waits for.
                    execution_timeout=timedelta(seconds=longest_s),
                    static_summary=f"try {trial.tool}",
                    rpc_timeout=_PATIENCE,
                )
        except (TimeoutError, WorkflowFailureError, RPCError, RuntimeError) as error:
            # A client that has not connected yet answers with a bare RuntimeError.
            _log.warning("tool_trial_not_run", tool=trial.tool, cause=type(error).__name__)
            return False
        return True
