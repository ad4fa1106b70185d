"""The start of a process: settings, logs, event loop; one clear line where it can't start."""

import sys
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import uvloop

from services.settings import Settings, read_settings
from services.setup_errors import SetupError
from workers.logs import configure_logs

# The event loop and the threads of Temporal's SDK hand work to each other several times in a turn.
# With Python's own 5 ms the loser of a race waits that long: a first token took 36 ms with an
# eager worker, and 30 ms with this.
_SWITCH_INTERVAL_S: Final = 0.0005


def run_process(serve: Callable[[Settings], Awaitable[None]]) -> None:
    """Run a process until it ends. Errors: SystemExit with code 1, after a line with the reason."""
    try:
        settings = read_settings()
        configure_logs(settings)

        async def run() -> None:
            await serve(settings)

        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        uvloop.run(run())
    except SetupError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"Can't start: {type(error).__name__}: {str(error).splitlines()[0]}.")


def _give_up(sentence: str) -> NoReturn:
    sys.stderr.write(sentence + "\n")
    raise SystemExit(1)
