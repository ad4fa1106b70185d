"""Owns having the tools of MCP servers listed from HTTP requests."""

import asyncio
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import structlog
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from api.temporal_absence import patience, why_away
from schema.mcp_servers import RefreshMcpServerInput, refresh_workflow_id
from schema.names import TASK_TIMEOUT, TOOLS_QUEUE
from workflows.refresh_mcp_server import RefreshMcpServer

_log = structlog.get_logger(__name__)

_EXECUTION_TIMEOUT: Final = timedelta(minutes=5)
"""After it nobody waits for the outcome: workers were away, and the next refresh starts anew."""


class RefreshProgress(StrEnum):
    """How far a refresh has come."""

    DONE = "done"
    UNDER_WAY = "under_way"
    UNAVAILABLE = "unavailable"


class ServerRefresher:
    """Starts refreshes, and waits for them or not."""

    def __init__(self, client: Client, *, wait_s: float = 36.0) -> None:
        self._client = client
        self._wait_s = wait_s
        self._underway: set[asyncio.Task[object]] = set()

    async def refresh(self, server: RefreshMcpServerInput) -> RefreshProgress:
        """List the tools of a server, and wait for that as long as a request may take.

        Idempotency: of one configuration there is one refresh at a time, which all wait for.
        """
        handle = await self._started(server)
        if handle is None:
            return RefreshProgress.UNAVAILABLE
        try:
            async with asyncio.timeout(self._wait_s):
                await handle.result()
        except TimeoutError:
            return RefreshProgress.UNDER_WAY
        except (WorkflowFailureError, RPCError) as error:
            _log.warning("mcp_refresh_failed", server=server.name, cause=type(error).__name__)
            return RefreshProgress.UNAVAILABLE
        return RefreshProgress.DONE

    def begin(self, server: RefreshMcpServerInput) -> None:
        """List the tools of a server in the background; an administrator can ask again."""
        task: asyncio.Task[object] = asyncio.ensure_future(self._started(server))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def _started(self, server: RefreshMcpServerInput) -> WorkflowHandle[Any, Any] | None:
        """Return the refresh that runs now; None where Temporal is away."""
        try:
            async with patience():
                return await self._start(server)
        except (RPCError, RuntimeError, TimeoutError) as error:
            _log.warning("mcp_refresh_not_started", cause=why_away(error))
            return None

    async def _start(self, server: RefreshMcpServerInput) -> WorkflowHandle[Any, Any]:
        return await self._client.start_workflow(
            RefreshMcpServer.run,
            server,
            id=refresh_workflow_id(server),
            task_queue=TOOLS_QUEUE,
            task_timeout=TASK_TIMEOUT,
            execution_timeout=_EXECUTION_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"MCP server {server.name}",
        )
