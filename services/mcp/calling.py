"""Owns one call of a tool over an open connection, and what it means where there is no result.

What the SDK does besides is left out: it lists all tools to compare a result with the schema that
was promised, and raises where that does not fit, when the tool has long had its effect.
`output_schemas.py` compares, by what is listed already.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    PARSE_ERROR,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
)
from pydantic import TypeAdapter, ValidationError

from services.mcp.connection import Connection
from services.mcp.conversation import Conversation, all_tools
from services.mcp.errors import (
    CallLostError,
    CallRefusedError,
    McpCallError,
    McpServerError,
    SessionLostError,
)
from services.mcp.exchange import MAX_ANSWER_BYTES, TOO_LONG
from services.mcp.words import bounded

_Answer: TypeAlias = CallToolResult | InputRequiredResult
_ANSWER: Final[TypeAdapter[_Answer]] = TypeAdapter(_Answer)
_MAX_ROUNDS: Final = 10
_PAUSE_S: Final = 0.25
_CLOSED: Final = "Connection closed"
_BROKEN_STREAM: Final = "SSE stream ended"
_UNREADABLE_STREAM: Final = "SSE stream failed"


async def call_tool(
    connection: Connection,
    tool: str,
    arguments: Mapping[str, Any],
    *,
    meta: Mapping[str, Any],
    on_progress: ProgressFnT,
) -> CallToolResult:
    """Call a tool by its own name. Errors: McpCallError.

    Cancelled, it tells the server so; the connection stays.
    """
    spoken = connection.conversation
    if spoken is None:
        raise CallLostError(connection.ended_by or "It closed the connection.", reached=False)
    params = CallToolRequestParams.model_validate(
        {"name": tool, "arguments": dict(arguments), "_meta": dict(meta)}
    )
    try:
        with connection.used():
            return await _answer(spoken, params, on_progress)
    except MCPError as error:
        raise _meaning(connection, error) from error
    except ValidationError as error:
        raise CallRefusedError(
            "The server's answer is not what MCP allows. The call may have had its effect."
        ) from error


async def _answer(
    spoken: Conversation, params: CallToolRequestParams, on_progress: ProgressFnT
) -> CallToolResult:
    for _ in range(_MAX_ROUNDS):
        answer = await _listed_if_need_be(spoken, params, on_progress)
        if isinstance(answer, CallToolResult):
            return answer
        if answer.input_requests:
            raise CallRefusedError("The tool asks for more input, which it can't be given here.")
        # It only wants to be asked again, with what it said.
        params = params.model_copy(update={"request_state": answer.request_state})
        await asyncio.sleep(_PAUSE_S)
    raise CallRefusedError("The tool asks to be called again and again.")


async def _listed_if_need_be(
    spoken: Conversation, params: CallToolRequestParams, on_progress: ProgressFnT
) -> _Answer:
    """Call, and list the tools first if the server asks for headers that only a listing tells."""
    request = CallToolRequest(params=params)
    try:
        return await spoken.session.send_request(request, _ANSWER, progress_callback=on_progress)
    except MCPError as error:
        if error.code != HEADER_MISMATCH or spoken.has_handshake:
            raise
    try:
        await all_tools(spoken)
    except McpServerError as error:
        raise CallRefusedError(f"The call was refused. {error}") from error
    return await spoken.session.send_request(request, _ANSWER, progress_callback=on_progress)


def _meaning(connection: Connection, error: MCPError) -> McpCallError:
    failure = connection.seal.failure_of(error)
    if failure is not None and failure.is_session_lost:
        return SessionLostError(failure.sentence)
    if failure is not None and not failure.is_too_long:
        return CallLostError(
            failure.sentence,
            reached=failure.reached,
            retry_after_s=failure.retry_after_s,
            is_unreachable=failure.is_unreachable,
        )
    if error.message == TOO_LONG:
        return CallRefusedError(
            f"The tool answered more than the {MAX_ANSWER_BYTES // 2**20} MiB that may be read. "
            "Ask it for less."
        )
    if error.code == CONNECTION_CLOSED and error.message.startswith((_CLOSED, _BROKEN_STREAM)):
        return CallLostError(connection.ended_by or "The connection broke.", reached=True)
    if error.message.startswith(_UNREADABLE_STREAM) or error.code == PARSE_ERROR:
        return CallRefusedError(
            "The tool's answer can't be read: it is too large or not whole. "
            "The call may have had its effect."
        )
    words = connection.without_secrets(bounded(error.message, 1_000))
    return CallRefusedError(f"The tool's server refused the call: {words}")
