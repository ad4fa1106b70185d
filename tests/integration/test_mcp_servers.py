"""Listing the tools of MCP servers that are real, slow, broken or hostile, by really connecting."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from api.temporal_gateway import RefreshProgress, TemporalGateway
from schema.mcp_servers import RefreshMcpServerInput
from services.mcp.addresses import HomeDirectories, ServerAddress, ServerAddresses, Timeouts
from services.mcp.connection import list_tools
from services.mcp.errors import McpServerError
from services.mcp.refresh import McpRefresh
from services.tools.masks import MASK
from services.tools.secrets import SecretVault
from tests.fakes.mcp_server import DEAF, PROGRAMS, serving_mcp
from tests.fixtures.api_user import ApiUser
from tests.fixtures.mcp import OURS
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually

SCRIPT = str(Path(__file__).parents[1] / "fakes" / "mcp_server.py")
PATIENT = Timeouts(connect_s=60, whole_s=60)
HASTY = Timeouts(connect_s=0.3, whole_s=2)


def new_name() -> str:
    return f"s{uuid4().hex[:20]}"


def arguments(mode: str) -> list[str]:
    return ["-c", PROGRAMS[mode]] if mode in PROGRAMS else [SCRIPT, mode]


def stdio(mode: str, **secrets: str) -> ServerAddress:
    return ServerAddress(sys.executable, tuple(arguments(mode)), None, secrets)


def http(url: str, **headers: str) -> ServerAddress:
    return ServerAddress(None, (), url, headers)


async def listed(address: ServerAddress, timeouts: Timeouts = PATIENT) -> list[str]:
    tools = await list_tools(address, allowed_hosts=("127.0.0.1",), timeouts=timeouts)
    return [tool.name for tool in tools]


async def problem_of(address: ServerAddress, timeouts: Timeouts = PATIENT) -> str:
    with pytest.raises(McpServerError) as raised:
        await listed(address, timeouts)
    return str(raised.value)


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


async def test_a_server_over_stdio_lists_its_tools() -> None:
    assert await listed(stdio("fine")) == ["echo", "reverse"]


async def test_a_server_that_greets_people_lists_its_tools_all_the_same() -> None:
    assert await listed(stdio("greet")) == ["echo", "reverse"]


async def test_all_pages_are_read() -> None:
    assert await listed(stdio("pages")) == [f"tool{number:03}" for number in range(300)]


async def test_a_process_gets_its_own_environment_and_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "ours")

    tools = await list_tools(stdio("env", TOKEN="theirs"), allowed_hosts=(), timeouts=PATIENT)

    names = set((tools[0].description or "").split(","))
    assert names - {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"} == {*OURS, "TOKEN"}


async def test_a_description_is_stored_without_the_servers_secrets() -> None:
    address = stdio("tell", TOKEN="is theirs")

    (tool,) = await list_tools(address, allowed_hosts=(), timeouts=PATIENT)

    assert (tool.name, tool.description) == ("tell", MASK)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("crash", "The process exited with status 7."),
        ("crash_at_list", "The process exited with status 3."),
        ("flood", "The server sent more than 16,777,216 bytes without answering."),
        ("chatter", "The server writes non-MCP output to stdout."),
        ("endless", "The server lists its tools on more than 100 pages."),
    ],
)
async def test_a_misbehaving_process_is_distinguished_from_a_working_one(
    mode: str, expected: str
) -> None:
    assert await problem_of(stdio(mode)) == expected


async def test_a_missing_command_is_reported() -> None:
    address = ServerAddress("/nonexistent/command", (), None, {})

    assert await problem_of(address) == "The command failed to start: No such file or directory."


async def test_a_process_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    address = ServerAddress(sys.executable, ("-c", DEAF, str(pids)), None, {})

    problem = await problem_of(address, Timeouts(connect_s=3, whole_s=5))

    assert problem == "Connecting timed out after 3 s."

    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    assert await eventually(left_of(left), lambda running: not running, within_s=5) == []


def left_of(pids: list[int]) -> Callable[[], Awaitable[list[int]]]:
    async def running() -> list[int]:
        return [pid for pid in pids if is_running(pid)]

    return running


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_server_that_hangs_while_it_lists_is_left() -> None:
    async with serving_mcp("hang_at_list") as server:
        problem = await problem_of(http(server.url), Timeouts(connect_s=20, whole_s=2))

    assert problem == "Listing tools timed out after 2 s."


async def test_a_server_over_http_lists_its_tools_to_those_with_its_header() -> None:
    async with serving_mcp(token="open sesame") as server:
        assert await listed(http(server.url, Authorization="Bearer open sesame")) == [
            "echo",
            "reverse",
        ]
        problem = await problem_of(http(server.url, Authorization="Bearer wrong"))

    assert "401" in problem or "error" in problem


@pytest.mark.parametrize("mode", ["rubbish", "redirect", "flood", "hang"])
async def test_a_server_over_http_that_misbehaves_is_a_problem(mode: str) -> None:
    async with serving_mcp(mode) as server:
        problem = await problem_of(http(server.url), HASTY)

    assert problem.startswith("The ")


async def test_nothing_at_an_address_is_a_problem(unused_tcp_port: int) -> None:
    problem = await problem_of(http(f"http://127.0.0.1:{unused_tcp_port}/mcp"))

    assert problem == "Connection failed."


@pytest.mark.parametrize(
    "url", ["http://localhost:1/mcp", "http://169.254.169.254/mcp", "http://[::1]:1/mcp"]
)
async def test_addresses_that_are_not_public_are_refused_unless_allowed_by_name(url: str) -> None:
    problem = await problem_of(http(url))

    assert "EVERTURN_ALLOWED_PRIVATE_HOSTS" in problem


async def test_a_secret_that_a_server_repeats_is_not_repeated() -> None:
    problem = await problem_of(stdio("repeat_secret", TOKEN="hush-hush"))

    assert "hush-hush" not in problem


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
