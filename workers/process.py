"""The start of a process: settings, logs, event loop; one clear line where it can't start."""

import re
import sys
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import asyncpg
import uvloop
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from services.database import DatabaseUnavailableError
from services.settings import Settings, explain_invalid_settings
from services.setup_errors import SetupError
from workers.logs import configure_logs

# The event loop and the threads of Temporal's SDK hand work to each other several times in a turn.
# With Python's own 5 ms the loser of a race waits that long: a first token took 36 ms with an
# eager worker, and 30 ms with this.
_SWITCH_INTERVAL_S: Final = 0.0005
_PASSWORD_IN_URL = re.compile(r"(://[^:@/]*:)[^@/]*@")


def run_process(
    serve: Callable[[Settings], Awaitable[None]], *, is_migration: bool = False
) -> None:
    """Run a process until it ends. Errors: SystemExit with code 1, after a line with the reason."""
    try:
        settings = Settings()
    except ValidationError as error:
        _give_up(explain_invalid_settings(error))
    configure_logs(settings)

    async def run() -> None:
        await serve(settings)

    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        uvloop.run(run())
    except SetupError as error:
        _give_up(str(error))
    except DatabaseUnavailableError as error:
        _give_up(_unreachable(settings, error.__cause__ or error))
    except (OSError, DBAPIError, asyncpg.PostgresError) as error:
        _give_up(_unreachable(settings, error, is_migration=is_migration))
    except RuntimeError as error:
        if "connect" not in str(error).lower():
            raise
        _give_up(
            f"Temporal can't be reached at {settings.temporal_address}. "
            "Check TEMPORAL_ADDRESS, or start it."
        )


def _unreachable(settings: Settings, error: BaseException, *, is_migration: bool = False) -> str:
    variable, url = "DATABASE_URL", settings.database_url
    if is_migration and settings.migration_database_url is not None:
        variable, url = "EVERTURN_MIGRATION_DATABASE_URL", settings.migration_database_url
    shown = _PASSWORD_IN_URL.sub(r"\1***@", url.get_secret_value())
    return (
        f"Can't start: {type(error).__name__}: {str(error).splitlines()[0]}. "
        f"Is the database at {shown} running, and {variable} right?"
    )


def _give_up(sentence: str) -> NoReturn:
    sys.stderr.write(sentence + "\n")
    raise SystemExit(1)
