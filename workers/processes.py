"""Owns the long-running processes: the API, and the workers of some queues."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Final

import uvicorn
from prometheus_client import start_http_server

from api.app import create_app
from schema.names import TURNS_QUEUE
from services.settings import Settings
from workers.composition import (
    Foundation,
    connect_temporal,
    open_activities,
    open_api_services,
    open_foundation,
)
from workers.worker import make_worker, run_workers

_GRACE_S: Final = 3
"""How long open streams may go on after the API was told to stop; clients resume elsewhere."""


async def serve_api(settings: Settings) -> None:
    """Run the API until SIGINT or SIGTERM; with `eager_worker`, a worker for turns beside it.

    Errors: DatabaseUnavailableError at the start; later outages are answered with 503.
    """
    async with AsyncExitStack() as stack:
        foundation = await stack.enter_async_context(open_foundation(settings))
        client = await connect_temporal(settings, lazy=not settings.eager_worker)
        services = await stack.enter_async_context(
            open_api_services(foundation, client, eager=settings.eager_worker)
        )
        if settings.eager_worker:
            activities = await stack.enter_async_context(open_activities(foundation, client))
            worker = make_worker(client, TURNS_QUEUE, activities, settings)
            await stack.enter_async_context(worker)
        await foundation.database.ping()
        app = create_app(services, max_body_bytes=settings.max_body_bytes)
        await uvicorn.Server(_server_config(app, settings)).serve()


def _server_config(app: object, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn's own type of ASGI is narrower than Starlette's
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        loop="none",
    )


async def serve_queues(settings: Settings, queues: Sequence[str]) -> None:
    """Run the workers of `queues` until SIGINT or SIGTERM.

    Errors: DatabaseUnavailableError at the start; later outages are waited for.
    """
    with _stop_signals() as stop:
        async with AsyncExitStack() as stack:
            foundation: Foundation = await stack.enter_async_context(open_foundation(settings))
            client = await connect_temporal(settings, lazy=False)
            activities = await stack.enter_async_context(open_activities(foundation, client))
            await foundation.database.ping()
            running = asyncio.create_task(
                run_workers(client, queues, activities, settings=settings, stop=stop)
            )
            if settings.metrics_port:
                server, thread = start_http_server(settings.metrics_port, addr=settings.api_host)
                stack.callback(thread.join)
                stack.callback(server.server_close)
                stack.callback(server.shutdown)
            await running


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Turn SIGINT and SIGTERM into an event while the block runs."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
