"""Owns how we speak MCP: which era of the protocol, with what, and what is listened to.

Nothing that a server asks of us is done: sampling, elicitation and roots are not offered, and
declined where they are asked for all the same.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from mcp.client._transport import TransportStreams
from mcp.client.session import ClientSession, IncomingMessage
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.shared.dispatcher import OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    Implementation,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolListChangedNotification,
)
from pydantic import ValidationError

from services.mcp.errors import McpServerError

_log = structlog.get_logger(__name__)

_MAX_TOOLS: Final = 500

_MAX_PAGES: Final = 100
_US: Final = Implementation(name="everturn", version="1")
_NO_HANDSHAKE: Final = frozenset(
    {
        *(HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST),
        *(METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION),
    }
)
"""What servers answer to a handshake that know only the later protocol, which has none."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is spoken over: by the SDK's session, or past it where that is too strict."""

    session: ClientSession
    dispatcher: JSONRPCDispatcher

    @property
    def has_handshake(self) -> bool:
        """Whether it is spoken in a version before that of 2026."""
        return self.session.initialize_result is not None


@asynccontextmanager
async def conversation(
    streams: TransportStreams, *, on_end: Callable[[], None], on_tools_changed: Callable[[], None]
) -> AsyncIterator[Conversation]:
    """Agree on a protocol, and speak it while the block runs.

    `on_end` is called when the server ends it. Errors: whatever the SDK raises.
    """

    async def hear(message: IncomingMessage) -> None:
        await asyncio.sleep(0)
        if isinstance(message, ToolListChangedNotification):
            on_tools_changed()

    dispatcher = _Dispatcher(streams, on_end)
    async with ClientSession(
        dispatcher=dispatcher, client_info=_US, message_handler=hear
    ) as session:
        await _negotiate(session)
        following = asyncio.create_task(_follow(session, on_tools_changed))
        try:
            yield Conversation(session, dispatcher)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def all_tools(spoken: Conversation) -> list[Tool]:
    """Return what a server lists, on all pages. Errors: McpServerError; those of the SDK."""
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await _page(spoken, cursor)
        tools += page.tools
        if len(tools) > _MAX_TOOLS:
            raise McpServerError(f"It lists more than {_MAX_TOOLS} tools.")
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise McpServerError(f"It lists its tools on more than {_MAX_PAGES} pages.")


async def _page(spoken: Conversation, cursor: str | None) -> ListToolsResult:
    """Return a page. One tool that is described wrongly must not cost the server all others."""
    if not spoken.has_handshake:
        return await spoken.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
    version = spoken.session.protocol_version or ""
    raw = await spoken.dispatcher.send_raw_request(
        "tools/list",
        None if cursor is None else {"cursor": cursor},
        {"headers": {MCP_PROTOCOL_VERSION_HEADER: version}},
    )
    tools, following = raw.get("tools"), raw.get("nextCursor")
    if not isinstance(tools, list) or not isinstance(following, str | None):
        raise McpServerError("It answered what MCP does not allow.")
    return ListToolsResult(tools=[_read(tool) for tool in tools], next_cursor=following)


def _read(tool: object) -> Tool:
    if isinstance(tool, dict) and not isinstance(tool.get("outputSchema"), dict | None):
        # The tool can be called without; this is no schema either, and told as such.
        tool = tool | {"outputSchema": {"type": None}}
    try:
        return Tool.model_validate(tool, by_name=False)
    except ValidationError:
        name = tool.get("name") if isinstance(tool, dict) else None
        # It is left out for its schema, with a word to the administrator.
        return Tool(name=name if isinstance(name, str) else "", input_schema={"type": None})


class _Dispatcher(JSONRPCDispatcher):
    """The SDK's own, which says when it is over."""

    def __init__(self, streams: TransportStreams, on_end: Callable[[], None]) -> None:
        super().__init__(*streams)
        self._on_end = on_end

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        try:
            await super().run(on_request, on_notify, on_notify_intercept, task_status=task_status)
        finally:
            self._on_end()


async def _negotiate(session: ClientSession) -> None:
    """Shake hands, as nearly all servers want it, or do without where that is not known.

    The SDK would ask for the later protocol first, and wait ten seconds for servers that do not
    answer what they don't know.
    """
    try:
        await session.initialize()
    except MCPError as error:
        if error.code not in _NO_HANDSHAKE:
            raise
        try:
            await session.discover()
        except MCPError:
            raise error from None


async def _follow(session: ClientSession, on_tools_changed: Callable[[], None]) -> None:
    """Hear of changed tools over the later protocol, where one has to ask for that."""
    capabilities = session.server_capabilities
    if session.discover_result is None or capabilities is None or capabilities.tools is None:
        return
    if not capabilities.tools.list_changed:
        return
    try:
        async with listen(session, tools_list_changed=True) as changes:
            async for _ in changes:
                on_tools_changed()
    except (MCPError, SubscriptionLost, TimeoutError) as error:
        # They are listed anew now and then in any case.
        _log.info("mcp_subscription_ended", cause=type(error).__name__)
