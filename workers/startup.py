"""The start of a long-lived process: without garbage collections, and at a signal of a supervisor.

Imports nothing slow: collection pauses before the imports of the application.
"""

import asyncio
import ctypes
import gc
import os
import sys
from typing import Final

_C_LIBRARY: Final = ctypes.CDLL(None)
_M_ARENA_MAX: Final = -8
"""An option of glibc's `mallopt`."""

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
    _return_freed_memory()
    gc.freeze()
    gc.set_threshold(_COLLECTION_THRESHOLD)
    gc.enable()


def limit_arenas() -> None:
    """Let threads share two arenas of memory instead of having one each, which stay half empty.

    After 50 turns that is 12 MB of a worker's memory.
    """
    if sys.platform == "linux" and (set_option := getattr(_C_LIBRARY, "mallopt", None)):
        set_option(_M_ARENA_MAX, 2)


def _return_freed_memory() -> None:
    """Give back to the system what imports and parsed files needed for a moment: 20 MB.

    The C library keeps it otherwise. Only glibc has such a function.
    """
    if trim := getattr(_C_LIBRARY, "malloc_trim", None):
        trim(0)


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
