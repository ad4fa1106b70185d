"""An MCP server of the real protocol, over standard streams or on loopback, that can misbehave.

As a program it takes a mode: `python mcp_server.py fine`.
"""

import gc

if __name__ == "__main__":
    # A program starts faster by a fifth if nothing is collected during its imports.
    gc.disable()

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp_types import ListToolsResult, PaginatedRequestParams, Tool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
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
"""A program that ignores both the end of its input and SIGTERM, and has a child."""

PROGRAMS = {
    "crash": "raise SystemExit(7)",
    "flood": "import sys\nwhile True: sys.stdout.write('x' * 65536)",
    "chatter": "import sys\nwhile True: sys.stdout.write('hello\\n')",
}
"""Programs that do not speak MCP."""


def named(*names: str) -> list[Tool]:
    """Return tools that are in order."""
    return [
        Tool(name=name, description=f"Does {name}.", input_schema=FINE_SCHEMA) for name in names
    ]


def tools_of(mode: str) -> list[Tool]:
    """Return the tools that a server lists in a mode."""
    if mode == "tools":
        from tests.fakes.mcp_tools import callable_tools  # noqa: PLC0415 -- a program of its own

        return callable_tools()
    wrong = Tool(name="wrong", input_schema={"type": "object", "properties": {"a": {"type": 7}}})
    unnameable = Tool(name="un\nnameable", input_schema=FINE_SCHEMA)
    names = ",".join(sorted(os.environ))
    told = Tool(name="tell", description=os.environ.get("TOKEN"), input_schema=FINE_SCHEMA)
    special = {
        "tell": [told],
        "many": named(*(f"tool{number}" for number in range(600))),
        "pages": named(*(f"tool{number:03}" for number in range(300))),
        "bad_schema": [*named("right"), wrong, unnameable],
        "dots": named("admin.tools.list", "echo"),
        "more_dots": named("admin_tools_list", "admin/tools/list", "echo", "admin.tools.list"),
        "env": [Tool(name="env", description=names, input_schema=FINE_SCHEMA)],
        "nul": [Tool(name="nul", description="a\x00b", input_schema=FINE_SCHEMA)],
    }
    return special.get(mode) or named("echo", "reverse")


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

    if mode != "tools":
        return Server("fake", on_list_tools=list_tools)
    from tests.fakes.mcp_tools import call_tool  # noqa: PLC0415 -- as above

    return Server("fake", on_list_tools=list_tools, on_call_tool=call_tool)


async def _serve_stdio(mode: str) -> None:
    server = make_server(mode, shown=os.environ.get("TOKEN", ""))
    async with stdio_server() as (read, write):
        changes = NotificationOptions(tools_changed=True)
        await server.run(read, write, server.create_initialization_options(changes))


def main(mode: str) -> None:
    """Serve over standard streams."""
    if mode == "greet":
        print("Welcome!", flush=True)
    asyncio.run(_serve_stdio(mode))


@dataclass
class HttpServer:
    """A server on loopback; `headers` are those of the requests that it got.

    It takes the tokens in `tokens`, if there are any, and forgets the sessions in `forgotten`.
    """

    url: str
    headers: list[Mapping[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    authorization_server: str | None = None

    def forget_sessions(self) -> None:
        """Know none of the sessions any more that there were."""
        self.forgotten |= {headers.get("mcp-session-id", "") for headers in self.headers} - {""}

    def refuses(self, request: Request) -> int:
        """Return the status with which it refuses a request, or 0."""
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens and sent not in self.tokens:
            return 401
        return 404 if request.headers.get("mcp-session-id") in self.forgotten else 0


@asynccontextmanager
async def serving_mcp(
    mode: str = "fine", *, token: str | None = None, port: int = 0, as_json: bool = False
) -> AsyncIterator[HttpServer]:
    """Serve over streamable HTTP on a free port; with a token, to those who send it."""
    server = make_server(mode, shown=token or "")
    app = server.streamable_http_app(json_response=as_json)
    served = HttpServer("")
    if token is not None:
        served.tokens.add(token)
    config = uvicorn.Config(
        _guarded(app, served, mode),
        host="127.0.0.1",
        port=port,
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
    bound_to = running.servers[0].sockets[0].getsockname()[1]
    served.url = f"http://127.0.0.1:{bound_to}/mcp"
    try:
        yield served
    finally:
        running.should_exit = True
        await main_loop
        await running.shutdown()


def _guarded(app: ASGIApp, served: HttpServer, mode: str) -> ASGIApp:
    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request = Request(scope)
        served.headers.append(dict(request.headers))
        answer = await _misbehaviour(mode, request, served)
        await (app if answer is None else answer)(scope, receive, send)

    return guard


async def _misbehaviour(mode: str, request: Request, served: HttpServer) -> Response | None:
    if request.url.path.startswith("/.well-known"):
        return _about_tokens(served)
    refused = served.refuses(request)
    if refused:
        return PlainTextResponse("no", status_code=refused)
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


def _about_tokens(served: HttpServer) -> Response:
    named = served.authorization_server
    if named is None:
        return PlainTextResponse("no", status_code=404)
    return JSONResponse({"resource": served.url, "authorization_servers": [named]})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(*sys.argv[1:])
