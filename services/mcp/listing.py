"""Owns one conversation with an MCP server: connect, list all tools, leave; all of it bounded."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import httpx2
import structlog
from mcp.client import Client
from mcp.client._transport import TransportStreams
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND, Implementation, Tool
from pydantic import ValidationError

from services.mcp.errors import McpServerError
from services.mcp.http import connect
from services.mcp.stdio import StdioServer

_log = structlog.get_logger(__name__)

MAX_TOOLS: Final = 500

_MAX_PAGES: Final = 100
_SENTENCES: Final = (
    (httpx2.ConnectError, "It can't be connected to."),
    (httpx2.TimeoutException, "It did not answer in time."),
    (httpx2.TransportError, "The connection to it broke."),
    (ValidationError, "It answered what MCP does not allow."),
)
_US: Final = Implementation(name="everturn", version="1")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a server may take. Units: seconds."""

    connect_s: float = 10.0
    whole_s: float = 30.0


@dataclass(frozen=True, slots=True, repr=False)
class ServerAddress:
    """How to speak with a server, its secrets included."""

    command: str | None
    args: tuple[str, ...]
    url: str | None
    secrets: Mapping[str, str]


async def list_tools(
    address: ServerAddress, *, allowed_hosts: Collection[str], timeouts: Timeouts
) -> list[Tool]:
    """Return all tools that a server lists.

    Errors: McpServerError for whatever the server does wrong, in words without its secrets.
    """
    process: StdioServer | None = None
    transport: AbstractAsyncContextManager[TransportStreams]
    if address.url is not None:
        transport = connect(address.url, headers=address.secrets, allowed_hosts=allowed_hosts)
    else:
        process = StdioServer(address.command or "", address.args, address.secrets)
        transport = process.connect()
    conversation = _Conversation(timeouts)
    try:
        async with asyncio.timeout(timeouts.whole_s):
            return await conversation.hold(transport)
    except TimeoutError:
        strayed = process is not None and process.has_strayed
        raise McpServerError(conversation.too_slow(strayed=strayed)) from None
    except Exception as error:
        # The SDK does not say what foreign servers can make it raise, nor is it one thing.
        problem = _problem_of(error, process)
        _log.info("mcp_server_failing", cause=type(_causes(error)[0]).__name__)
        raise McpServerError(_without(problem, address.secrets)) from error


class _Conversation:
    """What is said with one server, and how far it got."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._has_connected = False

    async def hold(self, transport: AbstractAsyncContextManager[TransportStreams]) -> list[Tool]:
        """Connect, list and leave. Errors: TimeoutError; whatever the SDK raises."""
        client = Client(transport, client_info=_US, cache=None)
        async with asyncio.timeout(self._timeouts.connect_s) as connecting, client:
            self._has_connected = True
            connecting.reschedule(None)
            return await _all_pages(client)

    def too_slow(self, *, strayed: bool) -> str:
        """Return the sentence for a server that took too long."""
        if self._has_connected:
            return f"It did not list its tools within {self._timeouts.whole_s:g} s."
        hint = " It writes what is no message of MCP to its standard output." if strayed else ""
        return f"It did not answer within {self._timeouts.connect_s:g} s.{hint}"


async def _all_pages(client: Client) -> list[Tool]:
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        if len(tools) > MAX_TOOLS:
            raise McpServerError(f"It lists more than {MAX_TOOLS} tools.")
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise McpServerError(f"It lists its tools on more than {_MAX_PAGES} pages.")


def _problem_of(error: Exception, process: StdioServer | None) -> str:
    """Say what a server did wrong. What ended its process explains whatever came of that."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, McpServerError):
            return str(cause)
    if process is not None and process.problem is not None:
        return process.problem
    return _words_for(causes[0])


def _words_for(cause: Exception) -> str:
    for kind, sentence in _SENTENCES:
        if isinstance(cause, kind):
            return sentence
    if isinstance(cause, MCPError):
        return _words_for_answer(cause.code, cause.message)
    if isinstance(cause, httpx2.HTTPStatusError):
        return f"It answered with HTTP status {cause.response.status_code}."
    return f"It can't be spoken with ({type(cause).__name__})."


def _words_for_answer(code: int, message: str) -> str:
    if code == CONNECTION_CLOSED:
        return "It closed the connection."
    if code == METHOD_NOT_FOUND:
        return "It does not list tools."
    return f"It answered with the error {code}: {message}"


def _causes(error: Exception) -> list[Exception]:
    """Return the errors that a group stands for; ours first."""
    flat = list(_flattened(error))
    return sorted(flat, key=lambda cause: not isinstance(cause, McpServerError))


def _flattened(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _flattened(inner)
    else:
        yield error


def _without(problem: str, secrets: Mapping[str, str]) -> str:
    """Return the sentence without the secrets, should the server have repeated one."""
    for secret in sorted(secrets.values(), key=len, reverse=True):
        if secret:
            problem = problem.replace(secret, "…")
    return problem
