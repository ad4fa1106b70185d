"""Listing the tools of MCP servers that are real, slow, broken or hostile, by really connecting."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from services.mcp.addresses import ServerAddress, Timeouts
from services.mcp.connection import list_tools
from services.mcp.errors import McpServerError
from services.tools.masks import MASK
from tests.fakes.mcp_hostile import INFO, serving_hostile
from tests.fakes.mcp_server import DEAF, serving_mcp
from tests.fixtures.mcp import OURS, arguments
from tests.running_everturn.waiting import eventually

PATIENT = Timeouts(connect_s=60, whole_s=60)
HASTY = Timeouts(connect_s=0.3, whole_s=2)


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


async def test_a_server_of_another_version_of_mcp_is_a_problem() -> None:
    async with serving_hostile() as server:
        server.info = {**INFO, "protocolVersion": "2031-01-01"}
        with pytest.raises(McpServerError) as raised:
            await listed(http(server.url))

    assert str(raised.value) == "The server speaks a version of MCP that is not supported."
    assert raised.value.outlook == "refused"


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
