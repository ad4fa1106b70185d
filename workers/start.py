"""Owns starting a process: settings, logs, event loop; and one clear line where it can't start."""

import re
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import asyncpg
import uvloop
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from services.auth.administrators import ensure_administrator
from services.auth.passwords import Passwords
from services.auth.tokens import WeakSecretError
from services.database import Database, DatabaseUnavailableError
from services.database.migrations import UnsafeRoleError, migrate
from services.models.pricing import UnknownPriceError
from services.settings import Settings
from workers.composition import MissingApiKeyError
from workers.logs import configure_logs

# Mistakes of whoever set the process up: their sentence says what to do.
_MISTAKES = (WeakSecretError, UnsafeRoleError, UnknownPriceError, MissingApiKeyError)
_PASSWORD_IN_URL = re.compile(r"(://[^:@/]*:)[^@/]*@")


def run_process(
    serve: Callable[[Settings], Awaitable[None]], *, is_migration: bool = False
) -> None:
    """Run a process to its end. Errors: SystemExit with code 1, after a line that says why."""
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"EVERTURN_{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        _give_up(f"The settings are not valid. {problems}")
    configure_logs(settings)

    async def run() -> None:
        await serve(settings)

    try:
        uvloop.run(run())
    except _MISTAKES as error:
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


async def migrate_database(settings: Settings, *, revision: str) -> None:
    """Bring the database to `revision` with the rights of the migration URL.

    Also makes the first administrator, if the settings name one.

    Errors: UnsafeRoleError; OSError and driver errors where the database can't be reached.
    """
    application_url = settings.database_url.get_secret_value()
    migration_url = settings.migration_database_url
    await migrate(
        application_url if migration_url is None else migration_url.get_secret_value(),
        application_url=application_url,
        revision=revision,
    )
    if revision != "base" and settings.admin_email and settings.admin_password:
        database = Database(application_url)
        try:
            await ensure_administrator(
                database,
                Passwords(),
                email=settings.admin_email,
                password=settings.admin_password.get_secret_value(),
            )
        finally:
            await database.close()


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
