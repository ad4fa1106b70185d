"""The process of the HTTP API."""

import asyncio
import errno
import resource
import socket
import warnings
from contextlib import AsyncExitStack, suppress
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic.warnings import UnsupportedFieldAttributeWarning
from temporalio.client import Client

from api.app import create_app
from api.connections import ConnectionBounds, OpenConnections
from api.http_protocol import ServerConfig
from schema.names import TURNS_QUEUE
from services.models.gateway import load_sdk
from services.settings import Settings
from services.setup_errors import PortTakenError
from workers.composition.api import open_api_services
from workers.composition.foundation import (
    Foundation,
    connect_temporal,
    open_foundation,
    warm_up,
)
from workers.metrics import serving_metrics
from workers.startup import await_start_signal, resume_collection

_log = structlog.get_logger(__name__)

_OTHER_FILES: Final = 512
"""Open files other than connections of clients: pools, uploads, what is being refused."""

_GRACE_S: Final = 3
"""How long open streams go on after a signal to stop; clients resume elsewhere."""

KEEP_ALIVE_S: Final = 75
"""How long an idle connection stays open.

Longer than proxies (60 s) and the pools of clients (5 s) keep theirs: the side that closes first
must be the one that sends, or a request meets a connection that is just being closed.
"""


async def serve_api(settings: Settings) -> None:
    """Run the API until SIGINT or SIGTERM; with `eager_worker`, also a worker for turns.

    Errors: PortTakenError; DatabaseUnavailableError at the start; later outages are answered with
    503.
    """
    async with AsyncExitStack() as stack:
        # First, so that clients which come early wait in its queue instead of being refused.
        listener = stack.enter_context(_listen(settings))
        foundation = await stack.enter_async_context(open_foundation(settings))
        await warm_up(foundation)
        if settings.eager_worker:
            load_sdk()
        await await_start_signal()
        client = await connect_temporal(settings, lazy=not settings.eager_worker)
        services = await stack.enter_async_context(
            open_api_services(foundation, client, eager=settings.eager_worker)
        )
        if settings.eager_worker:
            await _host_worker(stack, foundation, client)
        await foundation.database.ping()
        app = create_app(
            services,
            max_body_bytes=settings.max_body_bytes,
            temporal_ui_url=settings.temporal_ui_url,
        )
        stack.enter_context(serving_metrics(settings, app.state.metrics.registry))
        resume_collection()
        await _Server(app, settings).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """The HTTP server, which describes its API once it serves: that takes half a second."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(_server_config(app, settings))
        self._app = app

    async def main_loop(self) -> None:
        """Serve until the end; prepare `/openapi.json` once, in a thread."""
        # FastAPI ignores it where it arises, in a way that the first requests undo for the thread.
        warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)
        describing = asyncio.create_task(asyncio.to_thread(self._describe))
        await super().main_loop()
        await describing

    def _describe(self) -> None:
        self._app.openapi()
        resume_collection()


async def _host_worker(stack: AsyncExitStack, foundation: Foundation, client: Client) -> None:
    """Run a worker in this process, which takes the first task of the turns accepted here."""
    # A process without one needs no package of the model provider.
    from workers.composition.activities import open_activities  # noqa: PLC0415
    from workers.worker import make_worker  # noqa: PLC0415

    activities = await stack.enter_async_context(open_activities(foundation, client))
    worker = make_worker(client, TURNS_QUEUE, activities, foundation.settings)
    await stack.enter_async_context(worker)


def _listen(settings: Settings) -> socket.socket:
    """Return the socket of the API.

    Errors: PortTakenError; OSError for an address that is not this machine's.
    """
    address = (settings.api_host, settings.api_port)
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(settings.api_port, "EVERTURN_API_PORT") from error
        raise


def _server_config(app: FastAPI, settings: Settings) -> ServerConfig:
    bounds = ConnectionBounds(
        max_head_bytes=settings.max_head_bytes,
        head_timeout_s=settings.head_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        max_connections=_affordable_connections(settings.max_connections),
        max_connections_per_address=settings.max_connections_per_address,
        trusted_proxies=settings.trusted_proxies or (),
    )
    return ServerConfig(
        app,
        OpenConnections(bounds, app.state.metrics),
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        loop="none",
    )


def _affordable_connections(wanted: int) -> int:
    """Return how many connections may be open, having raised the limit of open files for them.

    Without files to spare, the process could connect to nothing itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + _OTHER_FILES:
        with suppress(ValueError, OSError):
            more = wanted + _OTHER_FILES
            raised = more if hard == resource.RLIM_INFINITY else min(more, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        if soft < wanted + _OTHER_FILES:
            _log.warning("connections_limited_by_open_files", open_files=soft, wanted=wanted)
            return max(soft - _OTHER_FILES, soft // 2)
    return wanted
