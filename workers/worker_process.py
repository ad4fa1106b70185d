"""The process that runs the workers of some queues."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager

from schema.names import TURNS_QUEUE
from services.models.gateway import load_sdk
from services.settings import Settings
from workers.composition.activities import open_activities
from workers.composition.foundation import connect_temporal, open_foundation, warm_up
from workers.metrics import serving_metrics
from workers.startup import await_start_signal, resume_collection
from workers.worker import run_workers


async def serve_queues(settings: Settings, queues: Sequence[str]) -> None:
    """Run the workers of `queues` until SIGINT or SIGTERM.

    Errors: DatabaseUnavailableError at the start; later outages are waited for.
    """
    async with AsyncExitStack() as stack:
        foundation = await stack.enter_async_context(open_foundation(settings))
        await warm_up(foundation)
        if TURNS_QUEUE in queues:
            load_sdk()
        await await_start_signal()
        client = await connect_temporal(settings, lazy=False)
        stop = stack.enter_context(_stop_signals())
        activities = await stack.enter_async_context(open_activities(foundation, client))
        with ExitStack() as metrics:
            await foundation.database.ping()
            resume_collection()
            await run_workers(
                client,
                queues,
                activities,
                settings=settings,
                stop=stop,
                # Once they respond, the workers are ready.
                on_ready=lambda: metrics.enter_context(serving_metrics(settings)),
            )


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
