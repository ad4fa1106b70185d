"""The start signal: lets the supervisor of `everturn dev` launch a process before its dependencies.

The process imports and loads what it needs at once, then waits for a byte at its standard input.
"""

import asyncio
import os
import sys
from typing import Final

START_SIGNAL_VARIABLE: Final = "EVERTURN_AWAITS_START_SIGNAL"


async def await_start_signal() -> None:
    """Return when the supervisor says that the servers are ready, at once without a supervisor.

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
