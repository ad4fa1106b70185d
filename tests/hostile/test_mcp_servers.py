"""MCP servers over HTTP that flood, answer something else, or name addresses they must not."""

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.fakes.mcp_hostile import HostileMcp, serving_hostile
from tests.fakes.raw_server import answered, saying, serving_raw
from tests.running_everturn.bystanders import Others
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.tools import CallingTurn, Outcome, administrator
from tests.running_everturn.waiting import eventually

SECRET: Final = "the-clients-own-secret"
CALL_S: Final = 1
TASK: Final = {
    "name": "long_job",
    "inputSchema": {"type": "object"},
    "execution": {"taskSupport": "required"},
}


@pytest.fixture
async def admin(everturn: ScriptedStack, client: Client) -> AsyncIterator[Client]:
    yield await administrator(everturn, client)
    for table in ("mcp_servers", "tool_settings"):
        await everturn.query(f"DELETE FROM {table}")


@pytest.fixture
async def hostile() -> AsyncIterator[HostileMcp]:
    async with serving_hostile() as server:
        yield server


async def registered(admin: Client, server: HostileMcp, **fields: object) -> dict[str, Any]:
    """Register a server, and return it as it is after its tools were listed."""
    name = f"s{uuid4().hex[:8]}"
    body = {"name": name, "transport": "http", "url": server.url, **fields}
    response = await admin.request("POST", "/admin/mcp-servers", body)
    assert response.status_code == 201, response.text

    async def seen() -> dict[str, Any]:
        found = await admin.request("GET", f"/admin/mcp-servers/{name}")
        server: dict[str, Any] = found.json()["data"]
        return server

    return await eventually(seen, lambda found: found["status"] != "unknown")


async def called(
    everturn: ScriptedStack, admin: Client, server: str, tool: str, *, timeout_s: int = 20
) -> Outcome:
    name = f"{server}__{tool}"
    await admin.request("PATCH", f"/admin/tools/{name}", {"timeoutS": timeout_s})
    return await (await CallingTurn.begin(everturn, admin, name)).end()


async def test_floods_end_with_their_calls_and_the_next_call_works(
    everturn: ScriptedStack, admin: Client, hostile: HostileMcp, others: Others
) -> None:
    hostile.extra_tools = [TASK]
    server = await registered(admin, hostile)
    assert server["status"] == "healthy"
    assert "`long_job` (runs only as a task" in server["problem"]

    floods = 0
    async with others("an MCP server that floods a call with pings") as more:
        while await more():
            flooded = await called(everturn, admin, server["name"], "pings", timeout_s=CALL_S)
            floods += 1
            assert flooded.status == "failed"

    assert len(hostile.received) < 400 * floods
    other = await called(everturn, admin, server["name"], "wrong_id", timeout_s=CALL_S)
    assert "different request" in other.output
    assert (await called(everturn, admin, server["name"], "fine")).output == "ok"


async def test_a_result_of_a_million_items_is_an_error_for_the_model(
    everturn: ScriptedStack, admin: Client, hostile: HostileMcp, others: Others
) -> None:
    server = await registered(admin, hostile)

    async with others("results of a million items") as more:
        while await more():
            items = await called(everturn, admin, server["name"], "items")
            event = await called(everturn, admin, server["name"], "items_event")
            assert (items.status, event.status) == ("failed", "failed")
            assert "100,000 items" in items.output
            assert "too much" in event.output

    assert (await called(everturn, admin, server["name"], "fine")).output == "ok"


async def test_a_server_cannot_send_requests_into_the_operators_network(
    admin: Client, hostile: HostileMcp
) -> None:
    async with serving_raw(saying(answered(b"{}"))) as engine:
        hostile.challenge = f'Bearer scope="a", resource_metadata="{engine.url}webhook/delete"'
        hostile.metadata["oauth-authorization-server"] = {
            "issuer": hostile.origin,
            "token_endpoint": f"{engine.url}webhook/pay",
        }
        oauth = {"clientId": "everturn", "clientSecret": SECRET}

        server = await registered(admin, hostile, oauth=oauth)

        assert engine.requests == []
    assert server["status"] == "failing"
    assert "private address" in server["problem"]
    assert SECRET not in str(server)


async def test_no_turn_waits_for_a_server_that_refuses_its_calls(
    everturn: ScriptedStack, admin: Client, hostile: HostileMcp, others: Others
) -> None:
    server = await registered(admin, hostile)
    tool = f"{server['name']}__fine"
    await admin.request("PATCH", f"/admin/tools/{tool}", {"timeoutS": 600})
    hostile.challenge = "Bearer"

    outcomes = []
    async with others("an MCP server that refuses its calls") as more:
        while await more():
            turn = await CallingTurn.begin(everturn, admin, tool)
            outcomes.append(await turn.end())

    assert len(outcomes) > 1
    for outcome in outcomes:
        assert outcome.status == "failed"
        assert "repeating the call does not help" in outcome.output
        assert "HTTP status 401" in outcome.output
    found = (await admin.request("GET", f"/admin/mcp-servers/{server['name']}")).json()["data"]
    assert (found["status"], found["problem"]) == (
        "failing",
        "The server responded with HTTP status 401.",
    )
    hostile.challenge = None
    # The server is asked again once the pause after its last failure is over.
    again = await eventually(
        lambda: called(everturn, admin, server["name"], "fine"),
        lambda outcome: outcome.output == "ok",
    )
    assert again.status == "completed"
