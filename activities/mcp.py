"""Owns the activity that lists an MCP server's tools."""

from temporalio import activity

from activities import names
from activities.heartbeats import heartbeats
from schema.mcp_servers import RefreshMcpServerInput, RefreshMcpServerOutput
from services.mcp.refresh import McpRefresh


class McpActivities:
    """What the workflow `RefreshMcpServer` does outside itself."""

    def __init__(self, refresh: McpRefresh) -> None:
        self._refresh = refresh

    @activity.defn(name=names.LIST_MCP_TOOLS)
    async def list_mcp_tools(self, server: RefreshMcpServerInput) -> RefreshMcpServerOutput:
        """List a server's tools and store them, or what was wrong with the server."""
        async with heartbeats():
            return await self._refresh.refresh(server)
