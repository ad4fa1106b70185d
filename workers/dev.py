"""Owns `everturn dev`: the whole of Everturn on one machine, from start to Ctrl-C."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from services.settings import Settings
from workers.embedded.announcement import announce
from workers.embedded.applications import Commands
from workers.embedded.errors import EmbeddedStackError
from workers.embedded.logs import Terminal
from workers.embedded.stack import DevelopmentStack

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_dev(
    data_dir: Path | None = None,
    *,
    ephemeral: bool = False,
    port: int | None = None,
    host: str | None = None,
    commands: Commands | None = None,
) -> None:
    """Run everything until Ctrl-C, SIGTERM or SIGHUP, and return when all of it has stopped.

    `port` and `host` of the API come from the settings where they are left out; port 0 is any.
    Errors: SystemExit with code 1, after a sentence on standard error.
    """
    begun = time.monotonic()
    try:
        settings = _settings(port=port, host=host)
        stack = DevelopmentStack(
            data_dir,
            settings=settings,
            ephemeral=ephemeral,
            terminal=(terminal := Terminal()),
            commands=commands,
        )
        asyncio.run(_run_until_stopped(stack, terminal, begun))
    except (EmbeddedStackError, ValidationError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        raise SystemExit(1) from None


async def _run_until_stopped(stack: DevelopmentStack, terminal: Terminal, begun: float) -> None:
    """Open the stack, wait for a signal and close it; a second signal kills at once."""
    with _stop_signals(then=stack.kill_all) as stop:
        try:
            await _open(stack, stop)
            if not stop.is_set():
                _announce(stack, terminal, begun)
                await stop.wait()
        finally:
            await stack.close()
    terminal.say("Everturn has stopped.")


async def _open(stack: DevelopmentStack, stop: asyncio.Event) -> None:
    """Open the stack; a signal that comes before it is ready ends the opening."""
    opening = asyncio.create_task(stack.open())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await opening


def _announce(stack: DevelopmentStack, terminal: Terminal, begun: float) -> None:
    announce(
        terminal,
        stack.addresses,
        demo=stack.has_demo_model,
        data=stack.directory.path,
        took=timedelta(seconds=time.monotonic() - begun),
    )


@contextmanager
def _stop_signals(*, then: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Yield an event that the first signal to stop sets; further signals call `then`."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def handle() -> None:
        if stop.is_set():
            then()
        stop.set()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, handle)
    try:
        yield stop
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


def _settings(*, port: int | None, host: str | None) -> Settings:
    given: dict[str, Any] = {"api_port": port, "api_host": host}
    return Settings(**{name: value for name, value in given.items() if value is not None})
