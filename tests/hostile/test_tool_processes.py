"""MCP servers over stdio that fork to get away: from their limits, or from their end."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.running_everturn.bystanders import Others
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually

FORKING = str(Path(__file__).parents[1] / "fakes" / "mcp_forking.py")


async def register(admin: Client, mode: str) -> str:
    """Register the server that forks, and list its tool."""
    name = f"s{uuid4().hex[:12]}"
    body = {
        "name": name,
        "transport": "stdio",
        "command": sys.executable,
        "args": ["-I", "-S", FORKING, mode],
    }
    response = await admin.request("POST", "/admin/mcp-servers", body)
    assert response.status_code == 201, response.text
    listed = await admin.request("POST", f"/admin/mcp-servers/{name}/refresh")
    assert listed.json()["data"]["toolCount"] == 1, listed.text
    return name


async def problem_of(admin: Client, server: str) -> str:
    """Return what is wrong with a server, or an empty text."""
    response = await admin.request("GET", f"/admin/mcp-servers/{server}")
    return response.json()["data"]["problem"] or ""


def processes_of(server: str) -> Callable[[], Awaitable[int]]:
    """Return what counts the processes that live in a server's folder."""

    async def count() -> int:
        found = 0
        for process in psutil.process_iter():
            try:
                is_there = Path(process.cwd()).name == server
                found += is_there and process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
        return found

    return count


async def ask(everturn: ScriptedStack, client: Client, server: str) -> object:
    """Return the status of a turn whose model calls the server's tool."""
    question = uuid4().hex
    call = ToolCall(name=f"{server}__fork", input={})
    everturn.model.add(Script(match=question, tool_calls=(call,)))
    everturn.model.add(Script(match=question, text="Done."))
    async with client.ask(question) as stream:
        events = await stream.to_end()
    return events[-1].status


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("hoard", "it used over 200 MiB of memory"),
        ("multiply", "it ran more than 40 processes"),
    ],
)
async def test_orphans_of_a_server_are_ended_with_it_at_its_limits(
    everturn: ScriptedStack, admin: Client, others: Others, *, mode: str, problem: str
) -> None:
    server = await register(admin, mode)

    async with others("servers that fork"):
        assert await ask(everturn, admin, server) == "completed"
        await eventually(lambda: problem_of(admin, server), lambda seen: problem in seen)
        assert await eventually(processes_of(server), lambda left: left == 0) == 0

    assert await ask(everturn, admin, await register(admin, "pid")) == "completed"


async def test_a_server_that_kills_its_supervisor_is_ended(
    everturn: ScriptedStack, admin: Client, others: Others
) -> None:
    server = await register(admin, "rebel")

    async with others("servers that fork"):
        assert await ask(everturn, admin, server) == "completed"
        assert await eventually(processes_of(server), lambda left: left == 0) == 0

    assert "supervises" in await problem_of(admin, server)
