"""An MCP server over standard streams that notes each call, and answers none before its second.

`act` has an effect, `look` has none and says so. The notes are in the file that `JOURNAL` names.
"""

import gc

if __name__ == "__main__":
    # A program starts faster by a fifth if nothing is collected during its imports.
    gc.disable()

import asyncio
import os
from pathlib import Path
from typing import Any, Final

from mcp.server import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

_ANY: Final[dict[str, Any]] = {"type": "object"}


async def _list_tools(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:  # noqa: ANN401 -- the SDK's
    looks = ToolAnnotations(read_only_hint=True)
    tools = [
        Tool(name="act", input_schema=_ANY),
        Tool(name="look", input_schema=_ANY, annotations=looks),
    ]
    return ListToolsResult(tools=tools)


async def _call_tool(_: Any, params: CallToolRequestParams) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    if _note(params.name):
        await asyncio.Event().wait()
    return CallToolResult(content=[TextContent(text="seen")])


def _note(call: str) -> bool:
    """Write a call down, and say whether it is the first of its tool."""
    journal = Path(os.environ["JOURNAL"])
    is_first = not journal.exists() or call not in journal.read_text().split()
    with journal.open("a") as file:
        file.write(f"{call}\n")
    return is_first


async def _serve() -> None:
    server = Server("effects", on_list_tools=_list_tools, on_call_tool=_call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options(NotificationOptions()))


if __name__ == "__main__":
    asyncio.run(_serve())
