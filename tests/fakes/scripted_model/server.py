"""The server of the scripted model, in the running event loop or as a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.fakes.scripted_model.app import create_app
from tests.fakes.scripted_model.connection import CUT_CONNECTION
from tests.fakes.scripted_model.model import ScriptedModel
from workers.demo_model.server import serve_app


class CuttableProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which also lets the application close the socket in mid-response."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the means to close the socket into the state of each request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, CUT_CONNECTION: transport.close}


@asynccontextmanager
async def serve(
    model: ScriptedModel, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve the model until the block is left, and yield its base URL."""
    app = create_app(model)
    async with serve_app(app, host=host, port=port, protocol=CuttableProtocol) as url:
        yield url
