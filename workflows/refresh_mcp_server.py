"""Owns listing the tools of one MCP server, as it is configured now."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.mcp_servers import RefreshMcpServerInput, RefreshMcpServerOutput
    from schema.names import REFRESH_MCP_SERVER

_RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3)


@workflow.defn(name=REFRESH_MCP_SERVER)
class RefreshMcpServer:
    """One listing. A server that fails is an outcome; what is tried again is our own trouble."""

    @workflow.run
    async def run(self, server: RefreshMcpServerInput) -> RefreshMcpServerOutput:
        """List the tools and store them."""
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
