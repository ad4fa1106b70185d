"""Owns the activities around MCP servers: which there are, and what tools each of them has."""

from temporalio import activity

from activities import names
from activities.heartbeats import heartbeats
from schema.mcp_servers import (
    McpServersToRefresh,
    RefreshMcpServerInput,
    RefreshMcpServerOutput,
)
from services.mcp.refresh import McpRefresh


class McpActivities:
    """What `RefreshMcpServer` and `SweepMcpServers` do outside themselves."""

    def __init__(self, refresh: McpRefresh) -> None:
        self._refresh = refresh

    async def is_any_configured(self) -> bool:
        """Whether any server is enabled; no activity. Errors: DatabaseUnavailableError."""
        return bool(await self._refresh.configured())

    @activity.defn(name=names.LIST_MCP_TOOLS)
    async def list_mcp_tools(self, server: RefreshMcpServerInput) -> RefreshMcpServerOutput:
        """List a server's tools and store them, or what was wrong with the server."""
        async with heartbeats():
            return await self._refresh.refresh(server)

    @activity.defn(name=names.FIND_MCP_SERVERS)
    async def find_mcp_servers(self) -> McpServersToRefresh:
        """Return the servers that are switched on, as they are configured now."""
        return McpServersToRefresh(servers=await self._refresh.configured())
