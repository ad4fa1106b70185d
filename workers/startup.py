"""The start of a long-lived process: without garbage collections, and at a signal of a supervisor.

Imports nothing slow: collection pauses before the imports of the application.
"""

import asyncio
import gc
import os
import sys
from typing import Final

START_SIGNAL_VARIABLE: Final = "EVERTURN_AWAITS_START_SIGNAL"

# Allocations minus deallocations between two collections. A request leaves some hundred objects in
# cycles; with Python's default of 700, the oldest generation was scanned every two seconds.
_COLLECTION_THRESHOLD: Final = 10_000


def pause_collection() -> None:
    """Stop collecting until `resume_collection`.

    Imports create 300,000 objects and next to no garbage; scanning them again and again took a
    fifth of the time that a process needs to start.
    """
    gc.disable()


def resume_collection() -> None:
    """Exempt every object that exists by now from collection, and collect the later ones rarely.

    Nearly all of them live as long as the process. Scanning them took 0.15 to 0.2 s, during which
    every request waited.
    """
    gc.freeze()
    gc.set_threshold(_COLLECTION_THRESHOLD)
    gc.enable()


async def await_start_signal() -> None:
    """Return when the supervisor says that the servers are ready, at once without a supervisor.

    The supervisor of `everturn dev` launches a process before the servers that it needs: it
    imports and loads what it can, then waits for a byte at its standard input.
    Errors: SystemExit where the supervisor is gone.
    """
    if os.environ.pop(START_SIGNAL_VARIABLE, None) is None:
        return
    loop, source = asyncio.get_running_loop(), sys.stdin.fileno()
    readable = asyncio.Event()
    loop.add_reader(source, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(source)
    if not os.read(source, 1):
        raise SystemExit(1)
