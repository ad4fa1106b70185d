"""What a process needs of its database to start, and the sentence where it does not get that.

DatabaseSetupError    the database can't be reached, or refuses the connection
SchemaError           it is not migrated to what this version of Everturn needs
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError

import schema.migrations
from schema.actors import SERVICE
from services.database.store import Database, DatabaseUnavailableError
from services.setup_errors import SetupError

_log = structlog.get_logger(__name__)

_FAILURES: Final = (
    *(OSError, DBAPIError, DatabaseUnavailableError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
)


class DatabaseSetupError(SetupError):
    """The database can't be reached, or refuses the connection."""


class SchemaError(SetupError):
    """The database is not migrated to what this version of Everturn needs."""


async def require_schema(database: Database, url: str) -> None:
    """Check that the database of DATABASE_URL answers and has been migrated.

    A newer one is fine: during a deployment it serves processes of both versions.
    Errors: DatabaseSetupError; SchemaError.
    """
    newest = newest_revision()
    with explained(url, variable="DATABASE_URL"):
        try:
            async with database.statements(SERVICE) as connection:
                current = await connection.fetchval("SELECT version_num FROM alembic_version")
        except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
            current = None
    if current is None or current < newest:
        state = "has not been migrated" if current is None else f"is at revision {current}"
        raise SchemaError(
            f"The database of DATABASE_URL ({shown(url)}) {state}; this version of Everturn needs "
            f"revision {newest}. Run `everturn migrate`."
        )
    if current > newest:
        _log.warning("database_is_newer", revision=current, newest_known=newest)


def newest_revision() -> str:
    """Return the number of the newest migration; they are numbered in their order."""
    versions = Path(schema.migrations.__file__).parent / "versions"
    return max(script.name for script in versions.glob("[0-9]*.py")).partition("_")[0]


@contextmanager
def explained(url: str, *, variable: str) -> Iterator[None]:
    """Turn failures to connect to a setting's database into one sentence that names both.

    Errors: DatabaseSetupError.
    """
    try:
        yield
    except _FAILURES as error:
        raise DatabaseSetupError(explain(error, url, variable=variable)) from error


def explain(error: BaseException, url: str, *, variable: str) -> str:
    """Return why the database of a setting can't be used, and what to do."""
    cause = _driver_error(error)
    detail = (str(cause).splitlines() or [""])[0].rstrip(".") or type(cause).__name__
    match cause:
        case asyncpg.InvalidCatalogNameError():
            rest = "doesn't exist. Create it: CREATE DATABASE ..."
        case asyncpg.InvalidAuthorizationSpecificationError():
            rest = f"refuses the connection: {detail}. Check role and password."
        case ssl.SSLError():
            rest = f"can't be reached by TLS: {detail}. Check sslmode and sslrootcert."
        case asyncpg.InterfaceError():
            return f"{variable} can't be used: {detail}."
        case OSError():
            rest = f"can't be reached: {detail}. Start it, or correct {variable}."
        case _:
            rest = f"can't be used: {type(cause).__name__}: {detail}."
    return f"The database of {variable} ({shown(url)}) {rest}"


def _driver_error(error: BaseException) -> BaseException:
    """Return the driver's own error; SQLAlchemy and the store wrap it."""
    while error.__cause__ is not None and not isinstance(error, asyncpg.PostgresError):
        error = error.__cause__
    return error


def shown(url: str) -> str:
    """Return role, host and database of a URL, without password and options."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    options = dict(parse_qsl(parts.query))
    place = f"{host or options.get('host', '')}/{parts.path[1:] or options.get('dbname', '')}"
    role = role_of(url)
    return f"{role}@{place}" if role else place


def role_of(url: str) -> str:
    """Return the role that a URL names, or an empty string."""
    parts = urlsplit(url)
    credentials, _, _ = parts.netloc.rpartition("@")
    return unquote(credentials.partition(":")[0]) or dict(parse_qsl(parts.query)).get("user", "")
