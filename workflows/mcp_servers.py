"""Refreshing the tools of MCP servers: of one server, and of all of them periodically."""

import asyncio
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy
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

_RETRIES: Final = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3)

_AT_ONCE: Final = 8
"""Each may start a process, on machines that have turns to run."""


@workflow.defn(name=REFRESH_MCP_SERVER)
class RefreshMcpServer:
    """One refresh. A server that fails is an outcome; only failures of our own are retried."""

    @workflow.run
    async def run(self, server: RefreshMcpServerInput) -> RefreshMcpServerOutput:
        """List the server's tools, as it is configured now, and store them."""
        outcome: RefreshMcpServerOutput = await workflow.execute_activity(
            names.LIST_MCP_TOOLS,
            server,
            result_type=RefreshMcpServerOutput,
            summary=f"list the tools of {server.name}",
            # Longer than the 30 s that a server has, and the 5 s in which its process is ended.
            start_to_close_timeout=timedelta(seconds=45),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=_RETRIES,
        )
        return outcome


@workflow.defn(name=SWEEP_MCP_SERVERS)
class SweepMcpServers:
    """One refresh of every enabled server: not all servers announce that their tools changed."""

    @workflow.run
    async def run(self) -> McpSweepOutcome:
        """Refresh each enabled server, a few at a time. What fails is left to the next run."""
        found = await workflow.execute_activity(
            names.FIND_MCP_SERVERS,
            result_type=McpServersToRefresh,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=ONCE,
        )
        slots = asyncio.Semaphore(_AT_ONCE)

        async def refresh(server: RefreshMcpServerInput) -> McpServerStatus:
            async with slots:
                return await _refresh(server)

        statuses = await asyncio.gather(*map(refresh, found.servers))
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
            static_summary=f"MCP server {server.name}",
        )
    except WorkflowAlreadyStartedError:
        # Another refresh of this server is running.
        return McpServerStatus.UNKNOWN
    except ChildWorkflowError:
        return McpServerStatus.UNKNOWN
    return outcome.status
