"""Owns having the tools of MCP servers listed from HTTP requests."""

import asyncio
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import structlog
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from schema.mcp_servers import RefreshMcpServerInput, refresh_workflow_id
from schema.names import TASK_TIMEOUT, TOOLS_QUEUE
from workflows.refresh_mcp_server import RefreshMcpServer

_log = structlog.get_logger(__name__)

_PATIENCE: Final = timedelta(seconds=3)
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
        try:
            handle = await self._start(server)
            async with asyncio.timeout(self._wait_s):
                await handle.result()
        except TimeoutError:
            return RefreshProgress.UNDER_WAY
        except WorkflowFailureError:
            _log.warning("mcp_refresh_failed", server=server.name)
            return RefreshProgress.UNAVAILABLE
        except (RPCError, RuntimeError) as error:
            # A client that has not connected yet answers with a bare RuntimeError.
            _log.warning("mcp_refresh_not_started", cause=type(error).__name__)
            return RefreshProgress.UNAVAILABLE
        return RefreshProgress.DONE

    def begin(self, server: RefreshMcpServerInput) -> None:
        """List the tools of a server in the background; an administrator can ask again."""
        task: asyncio.Task[object] = asyncio.ensure_future(self._begin(server))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def _begin(self, server: RefreshMcpServerInput) -> None:
        try:
            await self._start(server)
        except (RPCError, RuntimeError) as error:
            _log.warning("mcp_refresh_not_started", cause=type(error).__name__)

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
            rpc_timeout=_PATIENCE,
        )
