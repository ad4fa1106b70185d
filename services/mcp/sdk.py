"""A session with an MCP server, by the MCP SDK: the only module that imports the package `mcp`.

Most of what it imports is not the SDK's public API: that is why `mcp` is pinned below its next
minor version. `tests/unit/test_mcp_sdk.py` is the contract of what is needed.

Requests from servers are not served: sampling, elicitation and roots are not offered, and are
declined.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Final, TypeAlias

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from mcp import ClientSession, MCPError
from mcp.client._transport import TransportStreams
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    issuers_match,
)
from mcp.client.session import IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.shared.auth_utils import check_resource_allowed
from mcp.shared.dispatcher import OnNotify, OnNotifyIntercept, OnRequest, ProgressFnT
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import MessageMetadata, SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    JSONRPCRequest,
    PaginatedRequestParams,
    Tool,
    ToolListChangedNotification,
)
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from services.mcp.errors import McpServerError, Outlook
from services.mcp.limits import TokenBucket
from services.mcp.tool_names import MAX_TOOLS, first_by_name
from services.outgoing.errors import OutgoingError

__all__ = [
    "MCPError",
    "McpSession",
    "ProgressFnT",
    "SessionMessage",
    "TransportStreams",
    "build_oauth_authorization_server_metadata_discovery_urls",
    "build_protected_resource_metadata_discovery_urls",
    "check_resource_allowed",
    "describe",
    "flattened",
    "is_connection_lost",
    "is_unreadable",
    "issuers_match",
    "open_session",
    "outlook_of",
    "streamable_http_client",
]

_log = structlog.get_logger(__name__)

ToolAnswer: TypeAlias = CallToolResult | InputRequiredResult
_TOOL_ANSWER: Final[TypeAdapter[ToolAnswer]] = TypeAdapter(ToolAnswer)

_MAX_PAGES: Final = 100
_MAX_LIST_BYTES: Final = 16 * 1024 * 1024
_MAX_REQUESTS: Final = 200
_REQUESTS_REFILL_S: Final = 60.0
"""How many requests of a server are answered."""
_CLIENT_INFO: Final = Implementation(name="everturn", version="1")
_NO_HANDSHAKE: Final = frozenset(
    {
        *(HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST),
        *(METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION),
    }
)
"""How servers refuse a handshake if they only know the later protocol, which has none."""
_INVALID_RESPONSE: Final = "Invalid MCP response."
# The SDK tells these apart by their texts alone.
_CLOSED_TEXTS: Final = ("Connection closed", "SSE stream ended")
_UNREADABLE_TEXT: Final = "SSE stream failed"
_SENTENCE_OF_CODE: Final = {
    CONNECTION_CLOSED: "The server closed the connection.",
    METHOD_NOT_FOUND: "The server doesn't support listing tools.",
    PARSE_ERROR: _INVALID_RESPONSE,
}
_SENTENCES: Final = (McpServerError, OutgoingError)
"""The errors whose texts are sentences for an administrator."""


class McpSession:
    """A session: the SDK's client, or its dispatcher where the client is too strict."""

    def __init__(self, client: ClientSession, dispatcher: JSONRPCDispatcher) -> None:
        self._client = client
        self._dispatcher = dispatcher

    async def list_tools(self) -> list[Tool]:
        """Return the server's tools, from all pages.

        Of more than `MAX_TOOLS` these are the first by name, and one more, which tells.
        Errors: McpServerError; those of the SDK.
        """
        tools: list[Tool] = []
        cursor: str | None = None
        size = 0
        for _ in range(_MAX_PAGES):
            listed, cursor = await self._page(cursor)
            size += len(to_json(listed))
            if size > _MAX_LIST_BYTES:
                raise McpServerError(f"The server lists more than {_MAX_LIST_BYTES:,} bytes.")
            tools += map(_read, first_by_name(listed, _name_of, limit=MAX_TOOLS + 1))
            tools = first_by_name(tools, _name_of, limit=MAX_TOOLS + 1)
            if cursor is None:
                return tools
        raise McpServerError(f"The server lists its tools on more than {_MAX_PAGES} pages.")

    async def call_tool(
        self, params: CallToolRequestParams, on_progress: ProgressFnT
    ) -> ToolAnswer:
        """Return the answer to one `tools/call` request. Errors: MCPError, ValidationError.

        The SDK's own method also lists the tools, to compare the result with the declared schema,
        and raises when it does not match, although the tool has taken effect. `output_schemas.py`
        compares it with the schema that is stored already.
        """
        request = CallToolRequest(params=params)
        try:
            return await self._client.send_request(
                request, _TOOL_ANSWER, progress_callback=on_progress
            )
        except MCPError as error:
            if error.code != HEADER_MISMATCH or self._has_handshake:
                raise
        # The server requires headers that only a listing of its tools names.
        await self.list_tools()
        return await self._client.send_request(request, _TOOL_ANSWER, progress_callback=on_progress)

    @property
    def _has_handshake(self) -> bool:
        """Whether the protocol's version is one before 2026."""
        return self._client.initialize_result is not None

    async def _page(self, cursor: str | None) -> tuple[Sequence[object], str | None]:
        """Return the tools of one page, unread where one could hide all others, and the cursor."""
        if not self._has_handshake:
            page = await self._client.list_tools(params=PaginatedRequestParams(cursor=cursor))
            return page.tools, page.next_cursor
        version = self._client.protocol_version or ""
        raw = await self._dispatcher.send_raw_request(
            "tools/list",
            None if cursor is None else {"cursor": cursor},
            {"headers": {MCP_PROTOCOL_VERSION_HEADER: version}},
        )
        tools, next_cursor = raw.get("tools"), raw.get("nextCursor")
        if not isinstance(tools, list) or not isinstance(next_cursor, str | None):
            raise McpServerError(_INVALID_RESPONSE)
        return tools, next_cursor


def _name_of(tool: object) -> str:
    name = tool.get("name") if isinstance(tool, dict) else getattr(tool, "name", None)
    return name if isinstance(name, str) else ""


def _read(tool: object) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, dict) and not isinstance(tool.get("outputSchema"), dict | None):
        # The tool can be called all the same; `None` is not a schema either, and is reported.
        tool = tool | {"outputSchema": {"type": None}}
    try:
        return Tool.model_validate(tool, by_name=False)
    except ValidationError:
        # Skipped for its schema, which administrators see.
        return Tool(name=_name_of(tool), input_schema={"type": None})


@asynccontextmanager
async def open_session(
    streams: TransportStreams, *, on_end: Callable[[], None], on_tools_changed: Callable[[], None]
) -> AsyncIterator[McpSession]:
    """Negotiate a protocol version, and keep the session while the block runs.

    `on_end` is called when the server ends it. Errors: whatever the SDK raises.
    """

    async def handle(message: IncomingMessage) -> None:
        await asyncio.sleep(0)
        if isinstance(message, ToolListChangedNotification):
            on_tools_changed()

    dispatcher = _Dispatcher(streams, on_end)
    async with ClientSession(
        dispatcher=dispatcher, client_info=_CLIENT_INFO, message_handler=handle
    ) as client:
        await _negotiate(client)
        listening = asyncio.create_task(_listen(client, on_tools_changed))
        try:
            yield McpSession(client, dispatcher)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


class _Dispatcher(JSONRPCDispatcher):
    """The SDK's dispatcher, which also reports its end, and answers only so many requests."""

    def __init__(self, streams: TransportStreams, on_end: Callable[[], None]) -> None:
        super().__init__(*streams)
        self._on_end = on_end
        self._requests = TokenBucket(_MAX_REQUESTS, refill_s=_REQUESTS_REFILL_S)

    async def _dispatch_request(
        self,
        req: JSONRPCRequest,
        metadata: MessageMetadata,
        on_request: OnRequest,
        sender_ctx: Context | None,
    ) -> None:
        # Each gets a task and an answer: a server that floods gets no more of them.
        if self._requests.take(1):
            await super()._dispatch_request(req, metadata, on_request, sender_ctx)

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


async def _negotiate(client: ClientSession) -> None:
    """Shake hands, as nearly all servers expect, or discover the server if it has no handshake.

    The SDK would try the later protocol first, and wait ten seconds for servers that don't answer
    what they don't know.
    """
    try:
        await client.initialize()
    except MCPError as error:
        if error.code not in _NO_HANDSHAKE:
            raise
        try:
            await client.discover()
        except MCPError:
            raise error from None


async def _listen(client: ClientSession, on_tools_changed: Callable[[], None]) -> None:
    """Subscribe to changes of the tools: the later protocol only sends them on request."""
    capabilities = client.server_capabilities
    if client.discover_result is None or capabilities is None or capabilities.tools is None:
        return
    if not capabilities.tools.list_changed:
        return
    try:
        async with listen(client, tools_list_changed=True) as changes:
            async for _ in changes:
                on_tools_changed()
    except (MCPError, SubscriptionLost, TimeoutError) as error:
        # The sweep lists the tools in any case.
        _log.info("mcp_subscription_ended", cause=type(error).__name__)


def is_connection_lost(error: MCPError) -> bool:
    """Return whether the connection ended before the answer came."""
    return error.code == CONNECTION_CLOSED and error.message.startswith(_CLOSED_TEXTS)


def is_unreadable(error: MCPError) -> bool:
    """Return whether an answer came that could not be parsed."""
    return error.message.startswith(_UNREADABLE_TEXT) or error.code == PARSE_ERROR


def describe(error: Exception, ended_by: str | None) -> str:
    """Return an error as a sentence for an administrator, which may quote the server at length.

    `ended_by` is why the server's process ended, which explains the SDK's errors that follow.
    """
    cause = flattened(error)[0]
    if isinstance(cause, _SENTENCES):
        return str(cause)
    return ended_by or _sentence(cause)


def outlook_of(error: Exception) -> Outlook:
    """Return what an error while connecting says of the next attempt."""
    cause = flattened(error)[0]
    if isinstance(cause, McpServerError):
        return cause.outlook
    # It answers, but not as a server does that can be used.
    is_other = isinstance(cause, MCPError) and cause.code in {*_NO_HANDSHAKE, PARSE_ERROR}
    is_other = is_other or isinstance(cause, ValidationError) or _is_other_version(cause)
    return "refused" if is_other else "away"


def flattened(error: Exception) -> list[Exception]:
    """Return the errors of a group, those with sentences first."""
    return sorted(_leaves(error), key=lambda cause: not isinstance(cause, _SENTENCES))


def _sentence(cause: Exception) -> str:
    if isinstance(cause, MCPError):
        said = f"The server returned error {cause.code}: {cause.message}"
        return _SENTENCE_OF_CODE.get(cause.code, said)
    if isinstance(cause, ValidationError):
        return _INVALID_RESPONSE
    if isinstance(cause, TimeoutError):
        return "The server did not respond in time."
    if _is_other_version(cause):
        return "The server speaks a version of MCP that is not supported."
    return f"Connection failed ({type(cause).__name__})."


def _is_other_version(cause: Exception) -> bool:
    # The SDK has no type for it.
    return isinstance(cause, RuntimeError) and "protocol version" in str(cause)


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
