"""Activities of MCP servers: find those to refresh, and refresh the tools of one."""

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
    """The activities of `RefreshMcpServer` and `SweepMcpServers`."""

    def __init__(self, refresh: McpRefresh) -> None:
        self._refresh = refresh

    async def is_any_configured(self) -> bool:
        """Whether any server is enabled; no activity. Errors: DatabaseUnavailableError."""
        return bool(await self._refresh.enabled_servers())

    @activity.defn(name=names.LIST_MCP_TOOLS)
    async def list_mcp_tools(self, server: RefreshMcpServerInput) -> RefreshMcpServerOutput:
        """List a server's tools and store them, or store what is wrong with the server."""
        async with heartbeats():
            return await self._refresh.refresh(server)

    @activity.defn(name=names.FIND_MCP_SERVERS)
    async def find_mcp_servers(self) -> McpServersToRefresh:
        """Return the enabled servers, as they are configured now."""
        return McpServersToRefresh(servers=await self._refresh.enabled_servers())
