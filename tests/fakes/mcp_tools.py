"""The tools of the fake MCP server: what each does when it is called, some of it improper."""

import asyncio
import os
import struct
import sys
import zlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)

ANY: dict[str, Any] = {"type": "object"}
NOTED: list[str] = []
"""What tools of servers in this process noted."""


def note(words: str) -> None:
    """Leave word for the test: in its file, or in this process."""
    journal = os.environ.get("JOURNAL")
    if journal is None:
        NOTED.append(words)
    else:
        with open(journal, "a", encoding="utf-8") as file:  # noqa: PTH123 -- appended to
            file.write(f"{words}\n")


def png(width: int = 2, height: int = 2) -> bytes:
    """Return a small image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\x00" + b"\x80" * width for _ in range(height))
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def text(words: str, **more: Any) -> CallToolResult:  # noqa: ANN401 -- of many types
    """Return a result that is a text."""
    return CallToolResult(content=[TextContent(text=words)], **more)


async def _hang(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    note("hanging")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note("cancelled")
        raise
    return text("never")


async def _together(ctx: Any, given: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    """Answer once as many calls are under way as are meant to be."""
    many = given["many"]
    await _BARRIERS.setdefault(many, asyncio.Barrier(many)).wait()
    return text(f"{given['number']} of {os.getpid()}")


_BARRIERS: dict[int, asyncio.Barrier] = {}


async def _progress(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    for done in range(1, 51):
        await ctx.session.report_progress(done, 50, f"step {done}")
    return text("done")


async def _ask(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    try:
        await ctx.session.elicit_form("Your password?", {"type": "object", "properties": {}})
    except MCPError as error:
        return text(f"declined: {error.message}")
    return text("answered")


async def _change(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    EXTRA.append(Tool(name="added", input_schema=ANY))
    await ctx.session.send_tool_list_changed()
    return text("changed")


EXTRA: list[Tool] = []
"""What is listed besides."""


async def _crash(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    note("crashing")
    os._exit(3)


async def _flood(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    while True:
        sys.stdout.write("x" * 65536)


async def _chatter(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    for number in range(200):
        sys.stdout.write(f"working on {number}\n")
    sys.stdout.flush()
    return text("done")


async def _hoard(ctx: Any, given: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    HOARD.append(os.urandom(given["megabytes"] * 2**20))
    return await _hang(ctx, given)


HOARD: list[bytes] = []


async def _refuse(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    raise MCPError(INVALID_PARAMS, f"no such city, says {os.environ.get('TOKEN', 'nobody')}")


def _image(data: bytes) -> ImageContent:
    return ImageContent(data=b64encode(data).decode(), mime_type="image/png")


def _fixed(result: CallToolResult) -> "_Handler":
    async def answer(ctx: Any, _: dict[str, Any]) -> CallToolResult:  # noqa: ANN401 -- the SDK's
        return result

    return answer


_Handler = Callable[[Any, dict[str, Any]], Awaitable[CallToolResult]]
_HANDLERS: dict[str, _Handler] = {
    "ask": _ask,
    "big": _fixed(text("x" * (10 * 2**20))),
    "change": _change,
    "chatter": _chatter,
    "crash": _crash,
    "fail": _fixed(text("There is no such city.", is_error=True)),
    "flood": _flood,
    "hang": _hang,
    "hoard": _hoard,
    "keep": _fixed(CallToolResult(content=[], structured_content={"temperature": 21.5})),
    "lie": _fixed(CallToolResult(content=[], structured_content={"temperature": "warm"})),
    "progress": _progress,
    "omit": _fixed(text("It is warm.")),
    "refuse": _refuse,
    "show": _fixed(
        CallToolResult(
            content=[
                TextContent(text="Here:"),
                _image(png()),
                AudioContent(data="AAAA", mime_type="audio/wav"),
                ResourceLink(uri="file:///notes", name="notes"),
                EmbeddedResource(resource=TextResourceContents(uri="mem:///a", text="inlined")),
            ]
        )
    ),
    "together": _together,
    "vow": _fixed(CallToolResult(content=[], structured_content={"temperature": "warm"})),
    "weather.now": _fixed(CallToolResult(content=[], structured_content={"temperature": "warm"})),
    "weather/Zürich": _progress,
}
_WARMTH: dict[str, Any] = {
    "type": "object",
    "properties": {"temperature": {"type": "number"}},
    "required": ["temperature"],
}
_PROMISED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("fail", "keep", "lie", "omit", "weather.now"), _WARMTH),
    "vow": {"type": "object", "properties": {"temperature": {"type": 7}}},
}
"""The output schemas of tools; `vow` has an invalid one."""


async def call_tool(ctx: Any, params: CallToolRequestParams) -> CallToolResult:  # noqa: ANN401 -- the SDK's
    """Run the tool; an unknown one returns its input."""
    given = params.arguments or {}
    handler = _HANDLERS.get(params.name)
    if handler is not None:
        return await handler(ctx, given)
    if params.name not in {"echo", "read", "added"}:
        raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
    meta = {key: value for key, value in (ctx.meta or {}).items() if "/" in key}
    return CallToolResult(
        content=[], structured_content={"arguments": given, "meta": meta, "pid": os.getpid()}
    )


def callable_tools() -> list[Tool]:
    """Return the tools that can be called."""
    return [
        Tool(name="echo", input_schema=ANY, annotations=ToolAnnotations(idempotent_hint=True)),
        Tool(name="read", input_schema=ANY, annotations=ToolAnnotations(read_only_hint=True)),
        *(
            Tool(name=name, input_schema=ANY, output_schema=_PROMISED.get(name))
            for name in sorted(_HANDLERS)
        ),
        *EXTRA,
    ]
