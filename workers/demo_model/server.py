"""Owns the HTTP server under the demo model: loopback only, in the running event loop."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from workers.demo_model.app import create_app
from workers.demo_model.connection import CUT_CONNECTION
from workers.demo_model.model import DemoModel

_KEEP_ALIVE_S = 75


class CuttableProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which also lets the application close the socket in mid-response."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the means to close the socket into the state of each request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, CUT_CONNECTION: transport.close}


@asynccontextmanager
async def serve(model: DemoModel, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve the model until the block is left and yield its base URL; port 0 takes a free one.

    Leaving the block closes every connection, those of unfinished answers too.
    Errors: ValueError for a host that is not loopback; OSError if the port is in use.
    """
    with _listen(host, port) as listener:
        server = _server(create_app(model))
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


def _server(app: ASGIApp) -> uvicorn.Server:
    """Return a server that only its own methods start: `serve()` would take over the signals."""
    config = uvicorn.Config(
        app,
        http=CuttableProtocol,
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
        if isinstance(connection, CuttableProtocol):
            connection.transport.abort()
