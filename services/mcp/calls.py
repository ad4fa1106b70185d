"""Calls of MCP tools for the tool executor: what is sent with a call, and its outcome."""

import math
from asyncio import get_running_loop, to_thread
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from schema.tools import ToolDefinition, qualified_name
from services.database import DatabaseUnavailableError
from services.mcp.errors import CallLostError, CallRejectedError, bounded
from services.mcp.output_schemas import remark_on
from services.mcp.pool import McpPool
from services.tools.definition import ToolExecution, ToolOutcome, ToolProgress, ToolUnavailableError

if TYPE_CHECKING:
    from mcp_types import CallToolResult

_IDEMPOTENCY_KEY: Final = "everturn/idempotencyKey"
"""The key in `_meta`: its value is the same for every attempt of a call, and for no other call.

Source: the MCP specification, basic protocol, `_meta`: a prefix with a slash, and a name.
"""

_REPORT_EVERY_S: Final = 0.5
_MAX_MESSAGE: Final = 200


class McpCalls:
    """Runs tools of MCP servers."""

    def __init__(self, pool: McpPool) -> None:
        self._pool = pool

    async def run(
        self,
        definition: ToolDefinition,
        tool_input: Mapping[str, JsonValue],
        execution: ToolExecution,
        /,
    ) -> ToolOutcome:
        """Return the tool's outcome.

        Idempotency: the server gets the execution's key; it may or may not use it.
        Errors: ToolUnavailableError.
        """
        server = definition.server
        if server is None:
            raise ValueError("an MCP tool belongs to a server")
        named = definition.name.removeprefix(qualified_name(server, ""))
        tool = definition.name_on_server or named
        try:
            result, mask = await self._pool.call(
                server,
                tool,
                tool_input,
                meta={_IDEMPOTENCY_KEY: execution.key},
                on_progress=_Progress(execution),
            )
        except CallRejectedError as error:
            return ToolOutcome(output=str(error), is_error=True)
        except CallLostError as error:
            if _is_final(error, execution):
                return _refused(server, error)
            raise _unavailable(server, error) from error
        except DatabaseUnavailableError as error:
            # Only the server's configuration is read from it, before the call.
            raise ToolUnavailableError("The tool can't be run right now.", reached=False) from error
        # Imports the SDK, as the pool has done by now.
        from services.mcp.results import outcome_of  # noqa: PLC0415 -- see above

        return outcome_of(result, remark=await _remark_on(result, definition), mask=mask)


class _Progress:
    """Passes progress on, at most twice a second."""

    def __init__(self, execution: ToolExecution) -> None:
        self._report = execution.report
        self._clock = get_running_loop().time
        self._next_at = 0.0

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        now = self._clock()
        if now < self._next_at or not math.isfinite(progress):
            return
        self._next_at = now + _REPORT_EVERY_S
        total = total if total is not None and math.isfinite(total) else None
        text = None if message is None else bounded(message, _MAX_MESSAGE)
        self._report(ToolProgress(progress, total, text))


async def _remark_on(result: "CallToolResult", definition: ToolDefinition) -> str | None:
    """Return what is wrong with a result by the schema that the server has declared."""
    schema = definition.output_schema
    if schema is None:
        return None
    return await to_thread(remark_on, result, schema, tool=definition.name)


def _is_final(error: CallLostError, execution: ToolExecution) -> bool:
    """Return whether waiting is no use: the server refuses.

    One that an earlier attempt found away may be starting, and answer 404 until it is ready.
    """
    return error.outlook == "refused" or (error.outlook == "missing" and execution.attempt == 1)


def _refused(server: str, error: CallLostError) -> ToolOutcome:
    """Return the outcome of a call without an answer, which costs nothing."""
    why = "is unavailable, and repeating the call does not help"
    return ToolOutcome(
        output=f"The tool's server `{server}` {why}. {error.sentence}",
        is_error=True,
        cost_usd=Decimal(0),
    )


def _unavailable(server: str, error: CallLostError) -> ToolUnavailableError:
    wait = None if error.retry_after_s is None else timedelta(seconds=error.retry_after_s)
    return ToolUnavailableError(
        f"The tool's server `{server}` is unavailable. {error.sentence}",
        reached=error.reached,
        retry_after=wait,
    )
