"""An MCP server of the real protocol, over standard streams or on loopback, that can misbehave.

As a program it takes a mode: `python mcp_server.py fine`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp_types import ListToolsResult, PaginatedRequestParams, Tool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

FINE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
}
PAGE = 250
DEAF = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child}")
while True:
    signal.pause()
"""
"""A program that hears neither the end of its input nor a polite signal, and has a child."""

PROGRAMS = {
    "crash": "raise SystemExit(7)",
    "flood": "import sys\nwhile True: sys.stdout.write('x' * 65536)",
    "chatter": "import sys\nwhile True: sys.stdout.write('hello\\n')",
}
"""Programs that speak no MCP at all."""


def named(*names: str) -> list[Tool]:
    """Return tools that are in order."""
    return [
        Tool(name=name, description=f"Does {name}.", input_schema=FINE_SCHEMA) for name in names
    ]


def tools_of(mode: str) -> list[Tool]:
    """Return what a server lists in a mode."""
    if mode == "many":
        return named(*(f"tool{number}" for number in range(600)))
    if mode == "pages":
        return named(*(f"tool{number:03}" for number in range(300)))
    if mode == "bad_schema":
        wrong = Tool(name="wrong", input_schema={"type": "object", "properties": {"a": 7}})
        return [*named("right"), wrong, Tool(name="ünnameable", input_schema=FINE_SCHEMA)]
    if mode == "env":
        names = ",".join(sorted(os.environ))
        return [Tool(name="env", description=names, input_schema=FINE_SCHEMA)]
    if mode == "nul":
        return [Tool(name="nul", description="a\x00b", input_schema=FINE_SCHEMA)]
    return named("echo", "reverse")


def make_server(mode: str, *, shown: str = "") -> Server[Any]:
    """Return a server that lists its tools page by page."""

    async def list_tools(_: Any, params: PaginatedRequestParams | None) -> ListToolsResult:  # noqa: ANN401 -- a context that nothing is asked of
        if mode == "hang_at_list":
            await asyncio.Event().wait()
        if mode == "crash_at_list":
            os._exit(3)
        if mode == "repeat_secret":
            raise ValueError(f"not allowed: {shown}")
        start = int(params.cursor) if params is not None and params.cursor else 0
        tools = tools_of(mode)
        rest = str(start + PAGE) if start + PAGE < len(tools) else None
        if mode == "endless":
            rest = str(start)
            tools = []
        return ListToolsResult(tools=tools[start : start + PAGE], next_cursor=rest)

    return Server("fake", on_list_tools=list_tools)


async def _serve_stdio(mode: str) -> None:
    server = make_server(mode, shown=os.environ.get("TOKEN", ""))
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main(mode: str) -> None:
    """Serve over standard streams."""
    if mode == "greet":
        print("Welcome!", flush=True)
    asyncio.run(_serve_stdio(mode))


@dataclass
class HttpServer:
    """A server on loopback; `headers` are those of the requests that it got."""

    url: str
    headers: list[Mapping[str, str]] = field(default_factory=list)


@asynccontextmanager
async def serving_mcp(mode: str = "fine", *, token: str | None = None) -> AsyncIterator[HttpServer]:
    """Serve over streamable HTTP on a free port; with a token, to those who send it."""
    server = make_server(mode, shown=token or "")
    app = server.streamable_http_app()
    served = HttpServer("")
    config = uvicorn.Config(
        _guarded(app, served, mode, token),
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
    )
    config.load()
    running = uvicorn.Server(config)
    running.lifespan = config.lifespan_class(config)
    await running.startup()
    main_loop = asyncio.create_task(running.main_loop())
    port = running.servers[0].sockets[0].getsockname()[1]
    served.url = f"http://127.0.0.1:{port}/mcp"
    try:
        yield served
    finally:
        running.should_exit = True
        await main_loop
        await running.shutdown()


def _guarded(app: ASGIApp, served: HttpServer, mode: str, token: str | None) -> ASGIApp:
    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request = Request(scope)
        served.headers.append(dict(request.headers))
        answer = await _misbehaviour(mode, request, token)
        await (app if answer is None else answer)(scope, receive, send)

    return guard


async def _misbehaviour(mode: str, request: Request, token: str | None) -> Response | None:
    if token is not None and request.headers.get("authorization") != f"Bearer {token}":
        return PlainTextResponse("no", status_code=401)
    if mode == "hang":
        await asyncio.sleep(60)
    if mode == "flood":
        body = b'{"jsonrpc": "2.0", "id": 1, "result": "' + b"x" * (17 * 1024 * 1024) + b'"}'
        return Response(body, media_type="application/json")
    if mode == "rubbish":
        return PlainTextResponse("<html>")
    if mode == "redirect":
        return Response(status_code=307, headers={"Location": "http://169.254.169.254/latest"})
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
