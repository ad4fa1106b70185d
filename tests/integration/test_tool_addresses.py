"""Nothing on loopback is reached by whatever takes an address, unless an operator allows it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import pytest

from services.mcp.addresses import OAuthClient, ServerAddress, Timeouts
from services.mcp.connection import list_tools
from services.mcp.errors import McpServerError
from services.tools.definition import ToolOutcome
from tests.fakes.raw_server import RawServer, answered, saying, serving_raw
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fakes.webhook_engine import SECRET
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event, named, rebuild
from tests.fixtures.stack import Stack
from tests.fixtures.workflow_tools import RegisteredTool, calling, running_call

PUBLIC: Final = "http://93.184.216.34"
SPELLINGS: Final = (
    *("127.0.0.1", "127.1", "127.0.0.53", "0x7f.0.0.1", "0177.0.0.1", "2130706433", "0.0.0.0"),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"),
    *("[2002:7f00:1::]", "localhost", "LOCALHOST", "localhost.", "127.0.0.1."),
)


@dataclass
class Canary:
    """A service that must not be reached; it listens on both families under one port."""

    port: int = 0
    connections: int = 0

    def url(self, host: str = "127.0.0.1") -> str:
        """Return an address of it."""
        return f"http://{host}:{self.port}/"

    def accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count a connection."""
        self.connections += 1
        writer.close()


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    """The service; at the end of the test it is reachable and has not been contacted."""
    service = Canary()
    server = await asyncio.start_server(service.accept, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    other = await asyncio.start_server(service.accept, "::1", service.port)
    async with server, other:
        yield service
        assert service.connections == 0
        for host in ("localhost", "::1"):
            _, writer = await asyncio.open_connection(host, service.port)
            writer.close()


@pytest.fixture
async def admin(closed: Stack) -> AsyncIterator[ApiUser]:
    """An administrator of a stack that allows nothing; what was registered is gone afterwards."""
    yield await closed.sign_up_admin()
    for table in ("workflow_tools", "mcp_servers"):
        await closed.inspection.execute(f"DELETE FROM {table}")


def webhook(url: str) -> dict[str, Any]:
    return {
        "name": f"w{uuid4().hex[:12]}",
        "description": "Opens a ticket.",
        "url": url,
        "inputSchema": {"type": "object"},
        "secret": SECRET,
        "timeoutS": 10,
    }


async def register_webhook(admin: ApiUser, url: str) -> str:
    response = await admin.request("POST", "/admin/workflow-tools", json=webhook(url))
    assert response.status_code == 201, response.text
    return str(response.json()["data"]["name"])


async def trial(admin: ApiUser, tool: str) -> dict[str, Any]:
    response = await admin.request("POST", f"/admin/tools/{tool}/test", json={"input": {}})
    assert response.status_code == 200, response.text
    outcome: dict[str, Any] = response.json()["data"]
    return outcome


async def called(closed: Stack, tool: str) -> dict[str, Any]:
    """Have a model call the tool, and return the last event of the call."""
    person, question = await closed.sign_up(), unique()
    closed.model.add(Script(match=question, tool_calls=(ToolCall(name=tool),)))
    closed.model.add(Script(match=question, text="I see."))
    events: list[Event] = await person.events_of(await person.create_chat(), question)
    assert rebuild(events) == "I see."
    call = named(events, "tool_call")[-1].data
    # The call itself was attempted.
    assert "not available in this turn" not in call["output"]
    return call


def own_names() -> list[str]:
    """Return the names of this machine that stand for loopback, whatever its configuration."""
    names = {socket.gethostname(), socket.getfqdn(), "ip6-localhost", "localhost.localdomain"}
    return sorted(names - {"localhost"})


@pytest.mark.parametrize("host", [*SPELLINGS, *own_names()])
async def test_a_webhook_does_not_reach_loopback(canary: Canary, admin: ApiUser, host: str) -> None:
    tool = await register_webhook(admin, canary.url(host))

    outcome = await trial(admin, tool)

    assert outcome["isError"]
    assert canary.connections == 0


async def test_a_webhook_that_is_moved_to_loopback_does_not_reach_it(
    canary: Canary, admin: ApiUser, closed: Stack
) -> None:
    tool = await register_webhook(admin, f"{PUBLIC}/hook")
    changed = await admin.request(
        "PATCH", f"/admin/workflow-tools/{tool}", json={"url": canary.url()}
    )

    outcome, call = await trial(admin, tool), await called(closed, tool)

    assert changed.status_code == 200
    assert outcome["isError"]
    assert (call["status"], call["output"]) == ("failed", outcome["output"])
    assert canary.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_an_allowed_webhook_cannot_redirect_the_call(
    canary: Canary, admin: ApiUser, closed: Stack, status: int
) -> None:
    async with redirecting(canary, status) as server:
        tool = RegisteredTool(await register_webhook(admin, server.url), timeout_s=10)
        call = await running_call(closed, admin, tool)
        async with calling(closed, f"127.0.0.1:{server.port}") as calls:
            outcome = await calls.run(tool.definition, {}, call.execution)

    assert isinstance(outcome, ToolOutcome)
    assert outcome.is_error
    assert server.accepted == 1
    assert canary.connections == 0


@asynccontextmanager
async def redirecting(canary: Canary, status: int = 307) -> AsyncIterator[RawServer]:
    """Serve redirects to the canary."""
    location = f"Location: {canary.url()}"
    async with serving_raw(saying(answered(b"", location, status=f"{status} Go on"))) as server:
        yield server


@pytest.mark.parametrize(
    "schema_of",
    [
        lambda url: {"type": "object", "$ref": url},
        lambda url: {"type": "object", "properties": {"a": {"$ref": f"{url}#/a"}}},
        lambda url: {"type": "object", "properties": {"a": {"$dynamicRef": url}}},
        lambda url: {"type": "object", "$schema": url},
        lambda url: {"type": "object", "$id": url, "properties": {"a": {"$ref": "other"}}},
    ],
)
async def test_a_schema_that_refers_to_loopback_is_not_looked_up(
    canary: Canary, admin: ApiUser, schema_of: Callable[[str], dict[str, Any]]
) -> None:
    body = webhook(canary.url()) | {"inputSchema": schema_of(canary.url())}

    response = await admin.request("POST", "/admin/workflow-tools", json=body)
    if response.status_code == 201:
        # What only says of which kind it is refers to nothing.
        await trial(admin, body["name"])

    assert response.status_code in {201, 400}
    assert canary.connections == 0


@pytest.mark.parametrize("host", SPELLINGS)
async def test_an_mcp_server_on_loopback_is_not_reached(canary: Canary, host: str) -> None:
    await refused(address(canary.url(host)))

    assert canary.connections == 0


async def test_neither_a_listing_nor_a_call_reaches_an_mcp_server_on_loopback(
    canary: Canary, admin: ApiUser, closed: Stack
) -> None:
    name = f"s{uuid4().hex[:12]}"
    body = {"name": name, "transport": "http", "url": f"{PUBLIC}:9/"}
    for method, path, sent in (
        ("POST", "/admin/mcp-servers", body | {"url": canary.url("localhost")}),
        ("PATCH", f"/admin/mcp-servers/{name}", {"url": canary.url()}),
    ):
        response = await admin.request(method, path, json=sent)
        assert response.is_success, response.text
        listed = await admin.request("POST", f"/admin/mcp-servers/{name}/refresh")
        assert listed.json()["data"]["status"] == "failing"
    await closed.inspection.execute(
        "INSERT INTO mcp_tools (server, name, description, input_schema, retry_class) "
        "VALUES ($1, 'act', '', '{\"type\": \"object\"}', 'idempotent')",
        name,
    )

    call = await called(closed, f"{name}__act")

    assert call["status"] == "failed"
    assert canary.connections == 0


def address(url: str, *, token_url: str | None = None, has_oauth: bool = False) -> ServerAddress:
    oauth = OAuthClient("client", "its secret", token_url) if has_oauth else None
    return ServerAddress(None, (), url, {}, oauth)


async def refused(server: ServerAddress, *allowed_hosts: str) -> None:
    """Have a server's tools listed, and see that this fails."""
    with pytest.raises(McpServerError):
        await list_tools(server, allowed_hosts=allowed_hosts, timeouts=Timeouts(5, 5))


async def test_an_allowed_mcp_server_cannot_redirect_requests(
    canary: Canary,
) -> None:
    async with redirecting(canary) as server:
        await refused(address(server.url), f"127.0.0.1:{server.port}")

    assert server.accepted
    assert canary.connections == 0


async def test_tokens_are_not_asked_for_on_loopback(canary: Canary) -> None:
    server = address(f"{PUBLIC}/mcp", token_url=canary.url(), has_oauth=True)

    await refused(server)

    assert canary.connections == 0


async def test_an_allowed_token_endpoint_cannot_redirect_secrets(
    canary: Canary,
) -> None:
    async with redirecting(canary) as tokens:
        server = address(f"{PUBLIC}/mcp", token_url=tokens.url, has_oauth=True)
        await refused(server, f"127.0.0.1:{tokens.port}")

    assert tokens.accepted
    assert canary.connections == 0


@pytest.mark.parametrize("names", ["the issuer", "the token endpoint", "another place"])
async def test_an_mcp_server_cannot_name_loopback_for_tokens(canary: Canary, names: str) -> None:
    """A server's token metadata is untrusted, under whichever name it is requested."""

    async def answer(server: RawServer, writer: asyncio.StreamWriter) -> None:
        origin = server.url.removesuffix("/")
        metadata: dict[str, Any] = {
            "resource": server.url,
            "authorization_servers": [origin],
            "issuer": origin,
            "token_endpoint": f"{origin}/token",
        }
        if names == "the issuer":
            metadata["authorization_servers"] = [canary.url()]
        if names == "the token endpoint":
            metadata["token_endpoint"] = canary.url("localhost")
        headers = ["Content-Type: application/json"]
        if names == "another place":
            headers = [f'WWW-Authenticate: Bearer resource_metadata="{canary.url()}"']
        status = "401 Unauthorized" if names == "another place" else "200 OK"
        writer.write(answered(json.dumps(metadata).encode(), *headers, status=status))

    async with serving_raw(answer) as server:
        await refused(address(server.url, has_oauth=True), f"127.0.0.1:{server.port}")

    assert server.accepted
    assert canary.connections == 0
