"""MCP servers that administrators register: their tools, refreshes, problems and secrets."""

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from api.temporal_gateway import RefreshProgress, TemporalGateway
from schema.mcp_servers import RefreshMcpServerInput
from services.mcp.addresses import HomeDirectories, ServerAddresses
from services.mcp.refresh import McpRefresh
from services.tools.secrets import SecretVault
from tests.fakes.mcp_server import DEAF, serving_mcp
from tests.fixtures.api_user import ApiUser
from tests.fixtures.mcp import arguments
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually
from workers.composition.tools import make_vault


def new_name() -> str:
    return f"s{uuid4().hex[:20]}"


@pytest.fixture
async def admin(servers_removed: None, admin: ApiUser) -> ApiUser:
    """An administrator whose servers are removed after the test."""
    return admin


async def registered(admin: ApiUser, **body: object) -> dict[str, Any]:
    response = await admin.request("POST", "/admin/mcp-servers", json={"name": new_name(), **body})
    assert response.status_code == 201, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def registered_process(admin: ApiUser, mode: str) -> dict[str, Any]:
    return await registered(admin, transport="stdio", command=sys.executable, args=arguments(mode))


async def refreshed(admin: ApiUser, name: str) -> dict[str, Any]:
    response = await admin.request("POST", f"/admin/mcp-servers/{name}/refresh")
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def test_creating_a_server_lists_its_tools_in_the_background(admin: ApiUser) -> None:
    made = await registered(
        admin, transport="stdio", command=sys.executable, args=arguments("fine")
    )

    async def status() -> str:
        response = await admin.request("GET", f"/admin/mcp-servers/{made['name']}")
        return str(response.json()["data"]["status"])

    assert await eventually(status, lambda seen: seen != "unknown") == "healthy"
    assert made["status"] == "unknown"


async def test_a_refresh_adopts_the_current_list(admin: ApiUser, stack: Stack) -> None:
    made = await registered(
        admin, transport="stdio", command=sys.executable, args=arguments("fine")
    )
    await refreshed(admin, made["name"])
    changed = await admin.request(
        "PATCH", f"/admin/mcp-servers/{made['name']}", json={"args": arguments("bad_schema")}
    )
    assert changed.json()["data"]["status"] == "unknown"

    after = await refreshed(admin, made["name"])

    assert (after["status"], after["toolCount"]) == ("healthy", 1)
    assert after["problem"].startswith(
        "Skipped tools: `wrong` (its input schema is not a valid JSON schema"
    )
    assert "nameable` (invalid name" in after["problem"]
    shown = {
        tool["name"].removeprefix(f"{made['name']}__"): tool["problem"]
        for tool in (
            await admin.request("GET", "/admin/tools", params={"kind": "mcp", "limit": 100})
        ).json()["data"]
        if tool["server"] == made["name"]
    }
    assert shown.keys() == {"right", "wrong"}
    assert shown["right"] is None
    assert shown["wrong"].startswith("Skipped: its input schema is not a valid JSON schema")


async def administered(admin: ApiUser, server: str) -> dict[str, dict[str, Any]]:
    """Return the tools of a server by the names that it has for them."""
    shown = await admin.request("GET", "/admin/tools", params={"kind": "mcp", "limit": 100})
    return {
        tool["nameOnServer"] or tool["name"].removeprefix(f"{server}__"): tool
        for tool in shown.json()["data"]
        if tool["server"] == server
    }


async def test_tools_with_any_name_keep_their_settings_when_others_are_added(
    admin: ApiUser,
) -> None:
    made = await registered_process(admin, "dots")
    name = made["name"]
    before = await refreshed(admin, name)
    asked = await admin.request(
        "PATCH", f"/admin/tools/{name}__admin_tools_list", json={"approval": "ask"}
    )
    assert (before["toolCount"], before["problem"], asked.status_code) == (2, None, 200)
    await admin.request(
        "PATCH", f"/admin/mcp-servers/{name}", json={"args": arguments("more_dots")}
    )

    after = await refreshed(admin, name)

    assert (after["toolCount"], after["problem"]) == (4, None)
    tools = await administered(admin, name)
    assert {tool: tools[tool]["approval"] for tool in tools} == {
        "admin.tools.list": "ask",
        "admin/tools/list": None,
        # The only one whose present name doesn't tell that on the server.
        tools["echo"]["name"].removeprefix(f"{name}__"): None,
        "admin_tools_list": None,
    }
    assert tools["admin.tools.list"]["name"] == f"{name}__admin_tools_list"
    assert tools["admin_tools_list"]["name"].startswith(f"{name}__admin_tools_list_")


async def test_of_too_many_tools_the_first_are_used(admin: ApiUser) -> None:
    made = await registered_process(admin, "many")

    after = await refreshed(admin, made["name"])

    assert (after["status"], after["toolCount"]) == ("healthy", 500)
    assert after["problem"] == "More than 500 tools: only the first 500 by name are used."
    await admin.request("DELETE", f"/admin/mcp-servers/{made['name']}")


async def test_a_server_that_fails_keeps_the_tools_that_it_had(admin: ApiUser) -> None:
    made = await registered(
        admin, transport="stdio", command=sys.executable, args=arguments("fine")
    )
    await refreshed(admin, made["name"])
    await admin.request(
        "PATCH", f"/admin/mcp-servers/{made['name']}", json={"args": arguments("crash")}
    )

    after = await refreshed(admin, made["name"])

    assert (after["status"], after["toolCount"]) == ("failing", 2)
    assert after["problem"] == "The process exited with status 7."
    assert after["checkedAt"] is not None


async def test_characters_that_postgres_cannot_store_are_replaced(
    admin: ApiUser, stack: Stack
) -> None:
    made = await registered_process(admin, "nul")

    after = await refreshed(admin, made["name"])

    assert after["status"] == "healthy"
    assert (
        await stack.inspection.value(
            "SELECT description FROM mcp_tools WHERE server = $1", made["name"]
        )
        == "a\ufffdb"
    )


async def test_a_refresh_uses_the_secrets_that_were_stored(admin: ApiUser, stack: Stack) -> None:
    async with serving_mcp(token="open sesame") as server:
        made = await registered(
            admin,
            transport="http",
            url=server.url,
            headers={"Authorization": "Bearer open sesame"},
        )
        after = await refreshed(admin, made["name"])

    assert (after["status"], after["problem"]) == ("healthy", None)
    assert after["secretNames"] == ["Authorization"]
    stored = await stack.inspection.value(
        "SELECT secrets FROM mcp_servers WHERE name = $1", made["name"]
    )
    assert b"sesame" not in stored


async def test_secrets_whose_key_is_gone_make_a_server_fail(admin: ApiUser, stack: Stack) -> None:
    made = await registered(
        admin,
        transport="stdio",
        command=sys.executable,
        args=arguments("fine"),
        env={"TOKEN": "hush"},
    )
    await refreshed(admin, made["name"])
    addresses = ServerAddresses(SecretVault("k" * 32), HomeDirectories())
    refresh = McpRefresh(stack.foundation.database, addresses, allowed_hosts=())
    configured = await reference(stack, made["name"])

    outcome = await refresh.refresh(configured)

    assert outcome.status == "failing"
    shown = (await admin.request("GET", f"/admin/mcp-servers/{made['name']}")).json()["data"]
    assert "EVERTURN_ENCRYPTION_KEYS" in shown["problem"]


async def test_a_command_that_operators_do_not_allow_is_not_run(
    admin: ApiUser, stack: Stack, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    made = await registered(
        admin, transport="stdio", command="/usr/bin/touch", args=[str(ran)], env={"TOKEN": "hush"}
    )
    vault, homes = make_vault(stack.settings), HomeDirectories()
    addresses = ServerAddresses(vault, homes, commands=(sys.executable,))
    refresh = McpRefresh(stack.foundation.database, addresses, allowed_hosts=())
    await refreshed(admin, made["name"])
    assert ran.exists()
    ran.unlink()

    outcome = await refresh.refresh(await reference(stack, made["name"]))

    assert outcome.status == "failing"
    shown = (await admin.request("GET", f"/admin/mcp-servers/{made['name']}")).json()["data"]
    assert shown["problem"] == (
        "/usr/bin/touch is not among the commands of EVERTURN_MCP_COMMANDS."
    )
    assert not ran.exists()


async def test_a_tool_list_from_before_a_reconfiguration_is_dropped(
    admin: ApiUser, stack: Stack
) -> None:
    made = await registered(
        admin, transport="stdio", command=sys.executable, args=arguments("fine")
    )
    before = await reference(stack, made["name"])
    await admin.request("PATCH", f"/admin/mcp-servers/{made['name']}", json={"enabled": False})

    outcome = await stack.activities.mcp._refresh.refresh(before)

    assert outcome.superseded


async def test_concurrent_refreshes_are_merged(admin: ApiUser, stack: Stack) -> None:
    made = await registered(
        admin, transport="stdio", command=sys.executable, args=arguments("fine")
    )

    answers = await asyncio.gather(*(refreshed(admin, made["name"]) for _ in range(4)))

    assert {answer["status"] for answer in answers} == {"healthy"}
    assert {answer["toolCount"] for answer in answers} == {2}


async def test_a_request_times_out(admin: ApiUser, stack: Stack, tmp_path: Path) -> None:
    made = await registered(
        admin,
        transport="stdio",
        command=sys.executable,
        args=["-c", DEAF, str(tmp_path / "pids")],
    )
    impatient = TemporalGateway(stack.temporal, eager=False, refresh_wait_s=0.2)

    progress = await impatient.refresh_server(await reference(stack, made["name"]))

    assert progress is RefreshProgress.RUNNING
    await admin.request("DELETE", f"/admin/mcp-servers/{made['name']}")


async def test_the_history_of_a_refresh_holds_no_secret_and_no_text_of_the_server(
    admin: ApiUser, stack: Stack
) -> None:
    made = await registered(
        admin,
        transport="stdio",
        command=sys.executable,
        args=arguments("crash"),
        env={"TOKEN": "hush-hush-hush"},
    )
    await refreshed(admin, made["name"])
    configured = await reference(stack, made["name"])
    handle = stack.temporal.get_workflow_handle(
        f"refresh-{made['name']}-{configured.configured_at:%Y%m%dT%H%M%S.%fZ}"
    )

    history = (await handle.fetch_history()).to_json()

    assert "hush-hush-hush" not in history
    assert "by itself" not in history


async def reference(stack: Stack, name: str) -> RefreshMcpServerInput:
    configured_at = await stack.inspection.value(
        "SELECT updated_at FROM mcp_servers WHERE name = $1", name
    )
    return RefreshMcpServerInput(name=name, configured_at=configured_at)
