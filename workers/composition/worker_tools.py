"""Composition of tool execution in a worker, with its connections to the outside."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from schema.tools import ToolKind
from services.auth.accounts import AccountCache
from services.mcp.calls import McpCalls
from services.mcp.refresh import McpRefresh
from services.models.gateway import ModelGateway
from services.outgoing.client import OutgoingClient
from services.tools.catalogue import ToolCatalogue
from services.tools.definition import LocalTool
from services.tools.executor import ToolExecutor, ToolRunner
from workers.composition.foundation import Foundation
from workers.composition.local_tools import make_local_tools
from workers.composition.tools import (
    make_catalogue,
    make_mcp_pool,
    make_workflow_calls,
)


@dataclass(frozen=True, slots=True)
class WorkerTools:
    """A worker's catalogue and executor of tools."""

    catalogue: ToolCatalogue
    executor: ToolExecutor
    mcp_refresh: McpRefresh


@asynccontextmanager
async def open_worker_tools(
    foundation: Foundation, gateway: ModelGateway, more_tools: Sequence[LocalTool]
) -> AsyncIterator[WorkerTools]:
    """Open the tools of a worker; close them at the end. Errors: WeakEncryptionKeyError."""
    settings = foundation.settings
    accounts = AccountCache(foundation.database, lifetime_s=settings.account_cache_s)
    async with AsyncExitStack() as stack:
        allowed_hosts = settings.allowed_private_hosts or ()
        outgoing = await stack.enter_async_context(OutgoingClient(allowed_hosts=allowed_hosts))
        local = make_local_tools(foundation, accounts, gateway=gateway, outgoing=outgoing)
        for tool in more_tools:
            local.add(tool)
        catalogue = make_catalogue(foundation, local)
        pool, mcp_refresh = await stack.enter_async_context(make_mcp_pool(foundation))
        runners: dict[ToolKind, ToolRunner] = {
            ToolKind.LOCAL: local,
            ToolKind.MCP: McpCalls(pool),
            ToolKind.WORKFLOW: make_workflow_calls(foundation, outgoing),
        }
        executor = ToolExecutor(catalogue, accounts, runners)
        yield WorkerTools(catalogue, executor, mcp_refresh)
