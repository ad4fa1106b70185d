"""The start of a process: settings, logs, event loop; one clear line where it can't start."""

import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NoReturn

import uvloop

from services.settings import Settings, read_settings
from services.setup_errors import SetupError
from workers.logs import configure_logs
from workers.startup import limit_arenas

# The event loop and the threads of Temporal's SDK hand work to each other several times in a turn.
# With Python's own 5 ms the loser of a race waits that long: a first token took 36 ms with an
# eager worker, and 30 ms with this.
_SWITCH_INTERVAL_S: Final = 0.0005


def run_process(serve: Callable[[Settings], Awaitable[None]]) -> NoReturn:
    """Run a process and end it: with code 1, after a line with the reason, where it can't start.

    Not by the interpreter's own end: that waits for the threads of Temporal's client, which may
    wait for the interpreter, forever.
    """
    exit_code = 0
    try:
        settings = read_settings()
        configure_logs(settings)

        async def run() -> None:
            await serve(settings)

        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        limit_arenas()
        uvloop.run(run())
    except SystemExit as ended:
        exit_code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except SetupError as error:
        exit_code = _cant_start(str(error))
    except OSError as error:
        problem = str(error).splitlines()[0]
        exit_code = _cant_start(f"Can't start: {type(error).__name__}: {problem}.")
    except BaseException:  # noqa: BLE001 -- what the interpreter would do
        traceback.print_exc()
        exit_code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a pipe may have no reader any more
            stream.flush()
    os._exit(exit_code)


def _cant_start(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return 1
