"""The refresh of all enabled MCP servers, and the alerts of those that fail."""

import asyncio
from datetime import timedelta
from typing import Any

from schema.actors import SERVICE
from schema.mcp_servers import McpServerStatus, McpSweepOutcome
from schema.names import BACKGROUND_QUEUE, SWEEP_MCP_SERVERS
from schema.tables import McpServerRow
from schema.tables.columns import utc_now
from services.mcp.servers import ServerConfigurations
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


async def alerts_of(stack: Stack, server: str) -> list[dict[str, Any]]:
    return await stack.inspection.rows(
        "SELECT * FROM alerts WHERE resource_type = 'mcp_server' AND resource_id = $1 ORDER BY id",
        server,
    )


async def test_a_healthy_server_that_fails_is_an_alert_once_and_not_for_each_refresh(
    mcp: McpScene, stack: Stack
) -> None:
    async with serving_mcp("tools") as served:
        server = await mcp.http(served.url)
        await mcp.refresh.refresh(await mcp.reference(server))
    healthy = (await mcp.row(server))["status"]

    await asyncio.gather(
        *[mcp.refresh.refresh(await mcp.reference(server)) for _ in range(4)],
    )
    await mcp.refresh.refresh(await mcp.reference(server))

    assert (healthy, (await mcp.row(server))["status"]) == ("healthy", "failing")
    (alert,) = await alerts_of(stack, server)
    assert (alert["kind"], alert["severity"]) == ("mcp_server.failed", "warning")
    assert alert["details"] == '{"transport": "http"}'


async def test_a_server_that_never_worked_is_no_alert(mcp: McpScene, stack: Stack) -> None:
    server = await mcp.http("http://127.0.0.1:1/mcp")

    await mcp.refresh.refresh(await mcp.reference(server))

    assert (await mcp.row(server))["status"] == "failing"
    assert await alerts_of(stack, server) == []


async def test_a_server_that_works_now_and_then_is_an_alert_each_hour(
    mcp: McpScene, stack: Stack
) -> None:
    server = await mcp.http("http://127.0.0.1:1/mcp")
    async with stack.foundation.database.transaction(SERVICE) as session:
        row = await session.get(McpServerRow, server)
    assert row is not None
    started: list[None] = []
    configurations = ServerConfigurations(
        stack.foundation.database, lifetime_s=0, on_alert=lambda: started.append(None)
    )
    noon = utc_now().replace(hour=12, minute=10)

    for minutes in (0, 10, 20, 60):
        at = noon + timedelta(minutes=minutes)
        for status in (McpServerStatus.HEALTHY, McpServerStatus.FAILING):
            await configurations.store_status(row, status, None, at)

    assert len(await alerts_of(stack, server)) == len(started) == 2


async def test_a_report_from_before_a_reconfiguration_is_no_alert(
    mcp: McpScene, stack: Stack
) -> None:
    server = await mcp.http("http://127.0.0.1:1/mcp")
    async with stack.foundation.database.transaction(SERVICE) as session:
        row = await session.get(McpServerRow, server)
    assert row is not None
    await mcp.change(server, status="healthy")

    await ServerConfigurations(stack.foundation.database, lifetime_s=0).store_status(
        row, McpServerStatus.FAILING, "Connection failed.", utc_now()
    )

    assert (await mcp.row(server))["status"] == "healthy"
    assert await alerts_of(stack, server) == []
