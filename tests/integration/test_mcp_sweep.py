"""The refresh of all enabled MCP servers."""

from datetime import timedelta

from schema.mcp_servers import McpSweepOutcome
from schema.names import BACKGROUND_QUEUE, SWEEP_MCP_SERVERS
from tests.fakes.mcp_server import serving_mcp
from tests.fixtures.mcp import McpScene
from tests.fixtures.stack import Stack


async def test_a_sweep_lists_the_tools_of_every_server(mcp: McpScene, stack: Stack) -> None:
    await stack.inspection.execute("DELETE FROM mcp_servers")
    async with serving_mcp("tools") as served:
        fine, off = await mcp.http(served.url), await mcp.http(served.url)
        broken = await mcp.http("http://127.0.0.1:1/mcp")
        await mcp.change(off, enabled=False)

        outcome = await stack.temporal.execute_workflow(
            SWEEP_MCP_SERVERS,
            id=f"sweep-{fine}",
            task_queue=BACKGROUND_QUEUE,
            result_type=McpSweepOutcome,
            execution_timeout=timedelta(seconds=60),
        )

    assert outcome == McpSweepOutcome(healthy=1, failing=1)
    statuses = [(await mcp.row(server))["status"] for server in (fine, broken, off)]
    assert statuses == ["healthy", "failing", "unknown"]
