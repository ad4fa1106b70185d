"""The process of the HTTP API."""

import asyncio
import errno
import math
import resource
import signal
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic.warnings import UnsupportedFieldAttributeWarning
from temporalio.client import Client
from temporalio.worker import Worker

from api.app import create_app
from api.connections import ConnectionBounds, OpenConnections
from api.cors import allow_origins
from api.http_protocol import ServerConfig
from api.temporal_gateway import TemporalGateway
from schema.names import TURNS_QUEUE
from services.database.startup import require_schema
from services.settings import Settings
from services.setup_errors import PortTakenError
from workers.composition.api import open_api_services
from workers.composition.foundation import Foundation, open_foundation, warm_up
from workers.composition.temporal import connect_temporal
from workers.deployment.versions import noting_whether_current
from workers.metrics import ProcessHealth, serving_metrics
from workers.process_metrics import process_metrics
from workers.startup import await_start_signal, resume_collection
from workers.tracing import Traces, tracing

_log = structlog.get_logger(__name__)

_OTHER_FILES: Final = 512
"""Open files other than connections of clients: pools, uploads, what is being refused."""

KEEP_ALIVE_S: Final = 75
"""How long an idle connection stays open.

Longer than proxies (60 s) and the pools of clients (5 s) keep theirs: the side that closes first
must be the one that sends, or a request meets a connection that is just being closed.
"""


async def serve_api(settings: Settings) -> None:
    """Run the API until SIGINT or SIGTERM; with `eager_worker`, also a worker for turns.

    Errors: PortTakenError; DatabaseSetupError or SchemaError at the start. Later outages are
    answered with 503.
    """
    async with AsyncExitStack() as stack:
        # First, so that clients which come early wait in its queue instead of being refused.
        listener = stack.enter_context(_listen(settings))
        foundation = await stack.enter_async_context(open_foundation(settings))
        await await_start_signal()
        traces = await stack.enter_async_context(tracing("everturn-api"))
        client = await connect_temporal(
            settings, lazy=not settings.eager_worker, interceptors=traces.interceptors
        )
        services = await stack.enter_async_context(
            open_api_services(foundation, client, eager=settings.eager_worker)
        )
        await require_schema(foundation.database, settings.database_url.get_secret_value())
        app = create_app(
            services,
            max_body_bytes=settings.max_body_bytes,
            temporal_ui_url=settings.temporal_ui_url,
        )
        health = ProcessHealth()
        # Before anything takes work.
        registry = app.state.metrics.registry
        stack.enter_context(serving_metrics(settings, registry, health=health))
        stack.enter_context(process_metrics(settings, health, registry))
        await stack.enter_async_context(health.beating())
        worker = None
        if settings.eager_worker:
            worker = await _host_worker(stack, foundation, client, services.temporal)
            await warm_up(foundation)
        resume_collection()
        ending: list[asyncio.Task[None]] = []

        def end_others() -> None:
            services.turns.feed.end_streams()
            if worker is not None:
                ending.append(asyncio.create_task(worker.shutdown()))

        server = _Server(app, settings, health=health, on_end=end_others, traces=traces)
        await server.serve(sockets=[listener])
        await asyncio.gather(*ending)


class _Server(uvicorn.Server):
    """The HTTP server.

    SIGTERM first turns readiness off, and leaves all else as it is for `drain_s`. Then nothing new
    is accepted, `on_end` is called, and open requests have the grace to end. A second signal ends
    the waiting.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        *,
        health: ProcessHealth,
        on_end: Callable[[], None],
        traces: Traces,
    ) -> None:
        super().__init__(_server_config(app, settings, traces))
        self._app = app
        self._health = health
        self._drain_s = settings.drain_s
        self._on_end = on_end

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the block runs.

        Unlike uvicorn's own, this does not raise them again afterwards: SIGTERM would kill the
        process before its worker has finished.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._handle, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
                # From here on, a signal kills the process.
                signal.signal(number, signal.SIG_DFL)

    def _handle(self, number: signal.Signals) -> None:
        if self._app.state.is_stopping:
            self.should_exit = self.force_exit = True
            return
        self._app.state.is_stopping, self._health.is_ready = True, False
        drain_s = self._drain_s if number is signal.SIGTERM else 0.0
        _log.info("api_stopping", drain_s=drain_s)
        asyncio.get_running_loop().call_later(drain_s, self._leave)

    def _leave(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, then let open requests end."""
        # What this wakes runs after the lines of uvicorn's own that close the listeners: a client
        # that reconnects at once does not come back to this process.
        self._on_end()
        await super().shutdown(sockets)

    async def main_loop(self) -> None:
        """Serve until the end."""
        # The OpenAPI document is built in a thread. FastAPI ignores it where it arises, in a way
        # that other requests undo for the thread.
        warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)
        self._health.is_ready = not self._app.state.is_stopping
        await super().main_loop()


async def _host_worker(
    stack: AsyncExitStack, foundation: Foundation, client: Client, gateway: TemporalGateway
) -> Worker:
    """Run a worker in this process, which takes the first task of the turns accepted here.

    A worker with a version does so only while that is the current one.
    """
    # A process without one needs no package of the model provider.
    from workers.composition.activities import open_activities  # noqa: PLC0415
    from workers.worker import make_worker  # noqa: PLC0415

    activities = await stack.enter_async_context(open_activities(foundation, client))
    worker = make_worker(client, TURNS_QUEUE, activities, foundation.settings)
    await stack.enter_async_context(worker)
    build_id = foundation.settings.build_id
    if build_id is not None:
        gateway.is_eager = False
        note = partial(setattr, gateway, "is_eager")
        await stack.enter_async_context(noting_whether_current(client, build_id, note))
    return worker


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


def _server_config(app: FastAPI, settings: Settings, traces: Traces) -> ServerConfig:
    bounds = ConnectionBounds(
        max_head_bytes=settings.max_head_bytes,
        head_timeout_s=settings.head_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        max_connections=_affordable_connections(settings.max_connections),
        max_connections_per_address=settings.max_connections_per_address,
        trusted_proxies=settings.trusted_proxies or (),
    )
    return ServerConfig(
        allow_origins(traces.around(app), settings.cors_origins or ()),
        OpenConnections(bounds, app.state.metrics),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s),
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
