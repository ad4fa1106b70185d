"""An MCP server over HTTP, written by hand, that sends what no SDK would send.

Each of its tools is one way to misbehave; `fine` answers. `received` are the messages that it got.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tests.fixtures.serving import serving

INFO: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "hostile", "version": "1"},
}
MANY: Final = 100_000


@dataclass
class HostileMcp:
    """The server; `challenge` refuses each request without a token, with this header."""

    origin: str = ""
    challenge: str | None = None
    info: dict[str, Any] = field(default_factory=lambda: INFO)
    metadata: dict[str, Any] = field(default_factory=dict)
    endless_list: bool = False
    extra_tools: list[dict[str, Any]] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.origin}/mcp"

    def tools(self) -> list[dict[str, Any]]:
        names = ["fine", *_BODIES, *_EVENTS]
        return [{"name": name, "inputSchema": {"type": "object"}} for name in names]


def _result(request: object, text: str = "ok") -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": request,
        "result": {"content": [{"type": "text", "text": text}]},
    }


def _flood(message: Callable[[int], dict[str, Any]]) -> Callable[[object], Iterator[bytes]]:
    def events(request: object) -> Iterator[bytes]:
        for number in range(MANY):
            yield _event({"jsonrpc": "2.0", **message(number)})
        yield _event(_result(request))

    return events


def _event(message: object) -> bytes:
    return f"data: {json.dumps(message)}\n\n".encode()


def _endless(_: object) -> Iterator[bytes]:
    while True:
        yield b"data: " + b"x" * 65_536


def _comments(_: object) -> Iterator[bytes]:
    while True:
        yield b": still here\n\n" * 1_000


def _items(request: object) -> bytes:
    items = "[]," * 1_000_000
    result = f'{{"content": [], "structuredContent": {{"a": [{items}0]}}}}'
    return f'{{"jsonrpc": "2.0", "id": {json.dumps(request)}, "result": {result}}}'.encode()


_BODIES: Final[dict[str, Callable[[Any], bytes]]] = {
    "wrong_id": lambda _: json.dumps(_result("another")).encode(),
    "no_answer": lambda _: b'{"jsonrpc": "2.0", "method": "notifications/message"}',
    "batch": lambda request: json.dumps([_result(request), _result(request)]).encode(),
    "null": lambda _: b"null",
    "html": lambda _: b"<html>",
    "huge": lambda request: json.dumps(_result(request, "x" * 60_000_000)).encode(),
    "deep": lambda _: b"[" * 100_000,
    "items": _items,
}
_EVENTS: Final[dict[str, Callable[[object], Iterator[bytes]]]] = {
    "pings": _flood(lambda number: {"id": f"p{number}", "method": "ping"}),
    "samplings": _flood(
        lambda number: {
            "id": f"s{number}",
            "method": "sampling/createMessage",
            "params": {"messages": [], "maxTokens": 1},
        }
    ),
    "changes": _flood(lambda _: {"method": "notifications/tools/list_changed"}),
    "logs": _flood(
        lambda _: {"method": "notifications/message", "params": {"level": "info", "data": "x"}}
    ),
    "strangers": _flood(lambda number: _result(f"r{number}")),
    "no_lines": _endless,
    "comments": _comments,
    "huge_event": lambda request: iter([_event(_result(request, "x" * 60_000_000))]),
    "twice": lambda request: iter([_event(_result(request)), _event(_result(request, "again"))]),
    "items_event": lambda request: iter([b"data: ", _items(request), b"\n\n"]),
    "silence_after": lambda _: iter([b": hello\n\n"]),
}


@asynccontextmanager
async def serving_hostile() -> AsyncIterator[HostileMcp]:
    """Serve on a free port."""
    server, app = HostileMcp(), FastAPI()

    @app.post("/mcp")
    async def mcp(request: Request) -> Response:
        message = await request.json()
        server.received.append(message)
        if server.challenge is not None and "authorization" not in request.headers:
            return Response(status_code=401, headers={"WWW-Authenticate": server.challenge})
        if "id" not in message or "method" not in message:
            return Response(status_code=202)
        return _answer(server, message)

    @app.get("/.well-known/{path:path}")
    async def metadata(path: str) -> Response:
        found = server.metadata.get(path)
        return Response(status_code=404) if found is None else JSONResponse(found)

    async with serving(app) as origin:
        server.origin = origin
        yield server


def _answer(server: HostileMcp, message: dict[str, Any]) -> Response:
    request, method = message["id"], message["method"]
    if method == "initialize":
        return JSONResponse({"jsonrpc": "2.0", "id": request, "result": server.info})
    if method == "tools/list":
        tools = [*server.tools(), *server.extra_tools]
        page: dict[str, Any] = {"tools": [] if server.endless_list else tools}
        if server.endless_list:
            page["nextCursor"] = "again"
        return JSONResponse({"jsonrpc": "2.0", "id": request, "result": page})
    tool = message["params"]["name"]
    if tool in _BODIES:
        return Response(_BODIES[tool](request), media_type="application/json")
    if tool in _EVENTS:
        return StreamingResponse(_paced(_EVENTS[tool](request)), media_type="text/event-stream")
    return JSONResponse(_result(request))


async def _paced(events: Iterator[bytes]) -> AsyncIterator[bytes]:
    for number, event in enumerate(events):
        if number % 100 == 0:
            await asyncio.sleep(0)
        yield event
