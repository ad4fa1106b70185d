"""Owns the process of the HTTP API."""

import errno
import signal
import socket
from contextlib import AsyncExitStack
from typing import Final

import uvicorn
from temporalio.client import Client

from api.app import create_app
from schema.names import TURNS_QUEUE
from services.settings import Settings
from services.setup_errors import PortTakenError
from workers.api_processes import (
    HandedServer,
    end_with_parent,
    inherited_channel,
    serve_in_processes,
)
from workers.composition.api import open_api_services
from workers.composition.foundation import (
    Foundation,
    connect_temporal,
    open_foundation,
    warm_up,
)
from workers.garbage import spare_what_stays

_GRACE_S: Final = 3
"""How long open streams may go on after the API was told to stop; clients resume elsewhere."""

KEEP_ALIVE_S: Final = 75
"""How long an idle connection stays open.

Longer than proxies (60 s) and the pools of clients (5 s) keep theirs: the side that closes first
must be the one that sends, or a request meets a connection that is just being closed.
"""


async def serve_api(settings: Settings) -> None:
    """Run the API until SIGINT or SIGTERM, in as many processes as the settings say.

    Errors: PortTakenError; ApiProcessFailedError where one of several can't start;
    DatabaseUnavailableError at the start; later outages are answered with 503.
    """
    channel = inherited_channel()
    if channel is not None:
        end_with_parent(lambda: signal.raise_signal(signal.SIGTERM))
        with channel:
            await _serve(settings, channel, HandedServer)
        return
    with _listening(settings) as listener:
        if settings.api_processes > 1:
            await serve_in_processes(listener, settings.api_processes)
        else:
            await _serve(settings, listener, uvicorn.Server)


async def _serve(settings: Settings, source: socket.socket, server: type[uvicorn.Server]) -> None:
    """Run the API in this process; with `eager_worker`, a worker for turns beside it."""
    async with AsyncExitStack() as stack:
        foundation = await stack.enter_async_context(open_foundation(settings))
        client = await connect_temporal(settings, lazy=not settings.eager_worker)
        services = await stack.enter_async_context(
            open_api_services(foundation, client, eager=settings.eager_worker)
        )
        if settings.eager_worker:
            await _host_worker(stack, foundation, client)
        await foundation.database.ping()
        await warm_up(foundation)
        app = create_app(services, max_body_bytes=settings.max_body_bytes)
        # It takes a second, in which nobody else would be answered.
        app.openapi()
        spare_what_stays()
        await server(_server_config(app, settings)).serve(sockets=[source])


async def _host_worker(stack: AsyncExitStack, foundation: Foundation, client: Client) -> None:
    """Run a worker for turns in this process, which takes the first task of those begun here."""
    # A process without one has no need of the model provider's package.
    from workers.composition.activities import open_activities  # noqa: PLC0415
    from workers.worker import make_worker  # noqa: PLC0415

    activities = await stack.enter_async_context(open_activities(foundation, client))
    worker = make_worker(client, TURNS_QUEUE, activities, foundation.settings)
    await stack.enter_async_context(worker)


def _listening(settings: Settings) -> socket.socket:
    """Return the socket of the API.

    Errors: PortTakenError; OSError for an address that is not this machine's.
    """
    address = (settings.api_host, settings.api_port)
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(settings.api_port) from error
        raise


def _server_config(app: object, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn's own type of ASGI is narrower than Starlette's
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        loop="none",
        # Without it uvicorn would believe whoever connects from this machine.
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies or ()],
    )
