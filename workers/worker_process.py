"""The process that runs the workers of some queues."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from schema.names import TURNS_QUEUE
from services.database.startup import require_schema
from services.settings import Settings
from workers.composition.activities import open_activities
from workers.composition.foundation import open_foundation, warm_up
from workers.composition.temporal import connect_temporal
from workers.metrics import ProcessHealth, serving_metrics
from workers.process_metrics import process_metrics
from workers.startup import await_start_signal, resume_collection
from workers.tracing import tracing
from workers.worker import run_workers


async def serve_queues(settings: Settings, queues: Sequence[str]) -> None:
    """Run the workers of `queues` until SIGINT or SIGTERM, and their activities for the grace.

    A second signal ends the process at once.
    Errors: PortTakenError, DatabaseSetupError or SchemaError at the start; later outages are waited
    for.
    """
    async with AsyncExitStack() as stack:
        # First: a worker without its probes must not take work.
        health = ProcessHealth()
        stack.enter_context(serving_metrics(settings, health=health))
        stack.enter_context(process_metrics(settings, health))
        await stack.enter_async_context(health.beating())
        foundation = await stack.enter_async_context(open_foundation(settings))
        await await_start_signal()
        traces = await stack.enter_async_context(tracing("everturn-worker"))
        client = await connect_temporal(settings, lazy=False, interceptors=traces.interceptors)
        stop = stack.enter_context(_stop_signals())
        activities = await stack.enter_async_context(open_activities(foundation, client))
        starting = [require_schema(foundation.database, settings.database_url.get_secret_value())]
        if TURNS_QUEUE in queues:
            # Others embed rarely, and load the model when they do.
            starting.append(warm_up(foundation))
        await asyncio.gather(*starting)
        resume_collection()
        await run_workers(client, queues, activities, settings=settings, stop=stop, health=health)


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Turn the first SIGINT or SIGTERM into an event; a second one kills the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle() -> None:
        stop.set()
        leave()

    def leave() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            # Python's own handler of SIGINT would print where it came.
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)
    try:
        yield stop
    finally:
        leave()
