"""Owns listing the tools of all MCP servers now and then: not all of them say when those change."""

import asyncio
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.mcp_servers import (
        McpServerStatus,
        McpServersToRefresh,
        McpSweepOutcome,
        RefreshMcpServerInput,
        RefreshMcpServerOutput,
        refresh_workflow_id,
    )
    from schema.names import REFRESH_MCP_SERVER, SWEEP_MCP_SERVERS, TASK_TIMEOUT, TOOLS_QUEUE
    from workflows.retries import ONCE

_AT_ONCE: Final = 8
"""Each may be a process to be started, on machines that have turns to run."""


@workflow.defn(name=SWEEP_MCP_SERVERS)
class SweepMcpServers:
    """One sweep. What fails is left to the next one."""

    @workflow.run
    async def run(self) -> McpSweepOutcome:
        """Refresh each server that is switched on, some at a time."""
        found = await workflow.execute_activity(
            names.FIND_MCP_SERVERS,
            result_type=McpServersToRefresh,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=ONCE,
        )
        turns = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(server: RefreshMcpServerInput) -> McpServerStatus:
            async with turns:
                return await _refresh(server)

        statuses = await asyncio.gather(*map(in_turn, found.servers))
        return McpSweepOutcome(
            healthy=statuses.count(McpServerStatus.HEALTHY),
            failing=statuses.count(McpServerStatus.FAILING),
        )


async def _refresh(server: RefreshMcpServerInput) -> McpServerStatus:
    try:
        outcome: RefreshMcpServerOutput = await workflow.execute_child_workflow(
            REFRESH_MCP_SERVER,
            server,
            result_type=RefreshMcpServerOutput,
            id=refresh_workflow_id(server),
            task_queue=TOOLS_QUEUE,
            task_timeout=TASK_TIMEOUT,
            execution_timeout=timedelta(minutes=5),
        )
    except WorkflowAlreadyStartedError:
        # Somebody else refreshes it this moment.
        return McpServerStatus.UNKNOWN
    except ChildWorkflowError:
        return McpServerStatus.UNKNOWN
    return outcome.status
