"""What Everturn needs of the MCP SDK's internals: it exists, and behaves as `sdk.py` assumes.

If a newer version of `mcp` fails here, adapt `services/mcp/sdk.py` before raising the pin.
"""

import asyncio
import inspect
import re
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import requires, version
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequestParams,
    CallToolResult,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from services.mcp.sdk import (
    MCPError,
    McpSession,
    SessionMessage,
    TransportStreams,
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    check_resource_allowed,
    flattened,
    is_connection_lost,
    is_unreadable,
    issuers_match,
    open_session,
    streamable_http_client,
)

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


class Server:
    """The other end of the streams, which answers each method with a result that the test sets."""

    def __init__(self, **results: object) -> None:
        self.results: dict[str, object] = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {"listChanged": True}},
                "serverInfo": {"name": "server", "version": "1"},
            },
            **results,
        }
        self.received: list[JSONRPCMessage] = []
        self._to_client, self._incoming = anyio.create_memory_object_stream[
            SessionMessage | Exception
        ](10)
        self._outgoing, self._from_client = anyio.create_memory_object_stream[SessionMessage](10)

    @property
    def streams(self) -> TransportStreams:
        return self._incoming, self._outgoing

    async def send(self, message: JSONRPCMessage) -> None:
        await self._to_client.send(SessionMessage(message))

    async def serve(self) -> None:
        async for received in self._from_client:
            message = received.message
            self.received.append(message)
            if not isinstance(message, JSONRPCRequest):
                continue
            answer = self.results.get(message.method)
            if answer is None:
                break
            if isinstance(answer, ErrorData):
                await self.send(JSONRPCError(jsonrpc="2.0", id=message.id, error=answer))
            else:
                assert isinstance(answer, dict)
                await self.send(JSONRPCResponse(jsonrpc="2.0", id=message.id, result=answer))
        self.close()

    def close(self) -> None:
        for stream in (self._to_client, self._incoming, self._outgoing, self._from_client):
            stream.close()


def methods(server: Server) -> list[str]:
    return [
        message.method
        for message in server.received
        if isinstance(message, JSONRPCRequest | JSONRPCNotification)
    ]


async def called(session: McpSession) -> object:
    async def ignore(progress: float, total: float | None, message: str | None) -> None:
        pass

    params = CallToolRequestParams.model_validate({"name": "echo", "arguments": {"a": 1}})
    return await session.call_tool(params, ignore)


class Opened:
    """A session with a server, and what it reported."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ended = asyncio.Event()
        self.changed = asyncio.Event()

    async def run(self, work: Callable[[McpSession], Awaitable[T]]) -> T:
        serving = asyncio.create_task(self.server.serve())
        try:
            async with (
                asyncio.timeout(10),
                open_session(
                    self.server.streams,
                    on_end=self.ended.set,
                    on_tools_changed=self.changed.set,
                ) as session,
            ):
                return await work(session)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            self.server.close()


async def test_a_session_shakes_hands_first_and_calls_without_listing() -> None:
    server = Server(**{"tools/call": {"content": [], "structuredContent": {"a": 1}}})

    result = await Opened(server).run(called)

    assert isinstance(result, CallToolResult)
    assert result.structured_content == {"a": 1}
    assert methods(server) == [
        "initialize",
        "notifications/initialized",
        "tools/call",
    ]


async def test_one_invalid_tool_does_not_hide_the_others() -> None:
    tools = [{"name": "right", "inputSchema": {"type": "object"}}, {"name": "wrong"}, 7]
    server = Server(**{"tools/list": {"tools": tools}})

    listed = await Opened(server).run(McpSession.list_tools)

    assert [(tool.name, tool.input_schema) for tool in listed] == [
        ("right", {"type": "object"}),
        ("wrong", {"type": None}),
        ("", {"type": None}),
    ]


@pytest.mark.parametrize("first", [0, 700])
async def test_of_a_long_list_the_first_by_name_are_read(first: int) -> None:
    numbers = [*range(first, 1_400), *range(first)]
    tools = [{"name": f"t{number:04}", "inputSchema": {"type": "object"}} for number in numbers]
    server = Server(**{"tools/list": {"tools": [*tools, 7]}})

    listed = await Opened(server).run(McpSession.list_tools)

    # One more than are used, so that it can be said.
    assert [tool.name for tool in listed] == [f"t{number:04}" for number in range(501)]


async def test_a_server_without_a_handshake_is_discovered() -> None:
    refused = ErrorData(code=-32601, message="unknown method")
    opened = Opened(Server(initialize=refused))

    with pytest.raises(ExceptionGroup) as raised:
        await opened.run(called)

    assert [str(error) for error in flattened(raised.value)] == ["unknown method"]
    assert methods(opened.server) == ["initialize", "server/discover"]


async def test_changed_tools_are_reported() -> None:
    opened = Opened(Server())
    changed = JSONRPCNotification(jsonrpc="2.0", method="notifications/tools/list_changed")

    async def wait_for_change(_: McpSession) -> None:
        await opened.server.send(changed)
        await opened.changed.wait()

    await opened.run(wait_for_change)

    assert opened.changed.is_set()


async def test_a_connection_that_ends_fails_the_call_and_is_reported() -> None:
    opened = Opened(Server())

    async def fail(session: McpSession) -> MCPError:
        with pytest.raises(MCPError) as raised:
            await called(session)
        return raised.value

    assert is_connection_lost(await opened.run(fail))
    assert opened.ended.is_set()


def test_errors_of_broken_streams_are_distinguished_by_the_sdks_messages() -> None:
    source = inspect.getsource(sys.modules[streamable_http_client.__module__])

    assert "SSE stream ended without a response" in source
    assert 'f"SSE stream failed: {exc}"' in source
    assert is_connection_lost(MCPError(CONNECTION_CLOSED, "SSE stream ended without a response"))
    assert is_unreadable(MCPError(CONNECTION_CLOSED, "SSE stream failed: too large"))


def test_discovery_urls_and_issuers_are_those_of_the_specification() -> None:
    server = "https://mcp.example.com/a"

    assert build_protected_resource_metadata_discovery_urls(None, server) == [
        "https://mcp.example.com/.well-known/oauth-protected-resource/a",
        "https://mcp.example.com/.well-known/oauth-protected-resource",
    ]
    assert build_oauth_authorization_server_metadata_discovery_urls(
        "https://id.example.com", server
    )[0] == ("https://id.example.com/.well-known/oauth-authorization-server")
    assert check_resource_allowed(server, "https://mcp.example.com")
    assert not check_resource_allowed(server, "https://other.example.com")
    assert issuers_match("https://id.example.com", "https://id.example.com/")
    assert not issuers_match("https://id.example.com", "https://id.example.org")


def test_mcp_is_pinned_to_the_minor_version_that_is_installed() -> None:
    major, minor = map(int, version("mcp").split(".")[:2])
    pinned = next(entry for entry in requires("everturn") or () if entry.startswith("mcp"))

    bounds = sorted(re.findall(r"[<>=]+[\d.]+", pinned))
    assert bounds == [f"<{major}.{minor + 1}", f">={major}.{minor}"]


def test_only_one_module_imports_the_sdk() -> None:
    folders = ("activities", "api", "schema", "services", "workers", "workflows")
    importing = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(from|import) mcp[. ]", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]

    assert importing == ["services/mcp/sdk.py"]


async def test_only_so_many_requests_of_a_server_are_answered() -> None:
    server = Server(**{"tools/call": {"content": []}})

    async def flooded(session: McpSession) -> object:
        for number in range(1_000):
            await server.send(JSONRPCRequest(jsonrpc="2.0", id=f"p{number}", method="ping"))
        return await called(session)

    await Opened(server).run(flooded)

    answers = [one for one in server.received if isinstance(one, JSONRPCResponse)]
    # 200 at once, and three more for each second that the flood takes.
    assert 0 < len(answers) < 400


async def test_what_only_a_client_with_a_user_could_answer_is_declined() -> None:
    server = Server(**{"tools/call": {"content": []}})
    asked = ("sampling/createMessage", "elicitation/create", "roots/list")

    async def prompted(session: McpSession) -> object:
        for method in asked:
            params = {"messages": [], "maxTokens": 1, "message": "?", "requestedSchema": {}}
            request = JSONRPCRequest(jsonrpc="2.0", id=method, method=method, params=params)
            await server.send(request)
        return await called(session)

    await Opened(server).run(prompted)

    declined = [one for one in server.received if isinstance(one, JSONRPCError)]
    assert {one.id for one in declined} == set(asked)


@pytest.mark.parametrize("pages", ["many bytes", "the same page", "the same tools"])
async def test_a_list_without_an_end_is_refused(pages: str) -> None:
    many = "x" * (3_000_000 if pages == "many bytes" else 1)
    tools = [{"name": "a", "inputSchema": {"type": "object", "x": many}}] * 20
    listed = {"tools": [] if pages == "the same page" else tools, "nextCursor": "again"}
    server = Server(**{"tools/list": listed})

    with pytest.raises(ExceptionGroup) as raised:
        await Opened(server).run(McpSession.list_tools)

    expected = "16,777,216 bytes" if pages == "many bytes" else "100 pages"
    assert [expected in str(error) for error in flattened(raised.value)] == [True]
