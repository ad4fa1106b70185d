"""The HTTP server of the demo model: loopback only, in the running event loop."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import typer
import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from workers.demo_model.app import Pace, create_app

_KEEP_ALIVE_S: Final = 75


def run_demo_model(host: str, port: int, delay_to_first_ms: int, delay_between_ms: int) -> None:
    """Serve the demo model until SIGTERM or SIGINT, then return.

    Errors: ValueError for a host that is not loopback; OSError if the port is in use.
    """
    pace = Pace(delay_to_first_s=delay_to_first_ms / 1000, delay_between_s=delay_between_ms / 1000)
    uvloop.run(serve_until_stopped(create_app(pace), host=host, port=port))


async def serve_until_stopped(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    protocol: type[HttpToolsProtocol] = HttpToolsProtocol,
) -> None:
    """Serve the application until SIGTERM or SIGINT. Errors: as for `run_demo_model`."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with serve_app(app, host=host, port=port, protocol=protocol) as url:
        typer.echo(f"The demo model listens on {url}")
        await stopped.wait()


@asynccontextmanager
async def serve_app(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    protocol: type[HttpToolsProtocol] = HttpToolsProtocol,
) -> AsyncIterator[str]:
    """Serve the application until the block is left and yield its base URL; port 0 is any.

    Leaving the block closes every connection, those of unfinished answers too.
    Errors: ValueError for a host that is not loopback; OSError if the port is in use.
    """
    with _listen(host, port) as listener:
        server = _server(app, protocol)
        await server.startup(sockets=[listener])
        main_loop = asyncio.create_task(server.main_loop())
        try:
            yield _url(listener)
        finally:
            server.should_exit = True
            await main_loop
            _close_connections(server)
            await server.shutdown(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not address.is_loopback:
        raise ValueError(f"The demo model listens on loopback addresses only, not on {host}.")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return socket.create_server((str(address), port), family=family, backlog=2048)


def _server(app: ASGIApp, protocol: type[HttpToolsProtocol]) -> uvicorn.Server:
    """Return a server that only its own methods start: `serve()` would take over the signals."""
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    return server


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _close_connections(server: uvicorn.Server) -> None:
    for connection in list(server.server_state.connections):
        if isinstance(connection, HttpToolsProtocol):
            connection.transport.abort()
