"""Owns the demo model as a process of its own."""

import asyncio
import signal

import typer
import uvloop

from workers.demo_model.model import DemoModel
from workers.demo_model.server import serve


def run_demo_model(host: str, port: int, delay_to_first_ms: int, delay_between_ms: int) -> None:
    """Serve the demo model until SIGTERM or SIGINT, then return.

    Errors: ValueError for a host that is not loopback; OSError if the port is in use.
    """
    model = DemoModel(
        delay_to_first_s=delay_to_first_ms / 1000, delay_between_s=delay_between_ms / 1000
    )
    uvloop.run(_serve_until_stopped(model, host=host, port=port))


async def _serve_until_stopped(model: DemoModel, *, host: str, port: int) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with serve(model, host=host, port=port) as url:
        typer.echo(f"The demo model listens on {url}")
        await stopped.wait()
