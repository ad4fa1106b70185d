"""Applies and reverts migrations, and gives the processes' login role its rights.

MissingRoleError         the role of the processes does not exist
UnsafeRoleError          the role of the processes could bypass the policies
MissingRightsError       the migrating role may not change the database
OtherDatabaseError       the two URLs lead to different databases
NewerDatabaseError       a newer version of Everturn has migrated the database
UnknownRevisionError     there is no migration of that name
UnconfirmedRevertError   reverting migrations deletes data
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

import schema.migrations
from schema.migrations.policies import APPLICATION_ROLE, policy
from services.database.addresses import driver_arguments
from services.database.startup import DatabaseSetupError, explained, role_of, shown
from services.setup_errors import SetupError

_log = structlog.get_logger(__name__)

_BASE: Final = "base"
_HEAD: Final = "head"
_CONNECT_TIMEOUT_S: Final = 5
_MIGRATION_URL: Final = "EVERTURN_MIGRATION_DATABASE_URL"
_APPLICATION_URL: Final = "DATABASE_URL"
_FORGET_READERS: Final = "DROP POLICY IF EXISTS alembic_version_service ON alembic_version"
_LET_READ: Final = policy(
    "alembic_version", "service", "SELECT", "everturn_actor_type() = 'service'"
)
_LOCK: Final = "hashtext('everturn migrations')"


class MissingRoleError(SetupError):
    """The application's role does not exist."""

    def __init__(self, role: str) -> None:
        super().__init__(
            f"The role {role!r} of DATABASE_URL doesn't exist. Create it: "
            f"CREATE ROLE \"{role}\" LOGIN PASSWORD '...'"
        )


class UnsafeRoleError(SetupError):
    """The application's role is a superuser, or may bypass row-level security."""

    def __init__(self, role: str) -> None:
        super().__init__(
            f"The role {role!r} of DATABASE_URL bypasses row-level security. "
            "Use one without SUPERUSER and BYPASSRLS."
        )


class MissingRightsError(SetupError):
    """The migrating role may not change the database."""

    def __init__(self, url: str, *, variable: str, detail: str) -> None:
        super().__init__(
            f"The role of {variable} ({shown(url)}) may not migrate the database: {detail}. "
            f"Set {_MIGRATION_URL} to the same database with the role that owns it and has "
            "CREATEROLE."
        )


class OtherDatabaseError(SetupError):
    """The two URLs lead to different databases."""

    def __init__(self, application_url: str, migration_url: str) -> None:
        super().__init__(
            f"DATABASE_URL ({shown(application_url)}) and {_MIGRATION_URL} "
            f"({shown(migration_url)}) lead to different databases. They must lead to the same."
        )


class NewerDatabaseError(SetupError):
    """A newer version of Everturn has migrated the database."""

    def __init__(self, current: str, newest: str) -> None:
        super().__init__(
            f"The database is at revision {current}, but the newest that this version of Everturn "
            f"knows is {newest}. Run the newer version that migrated it."
        )


class UnknownRevisionError(SetupError):
    """No migration has this revision."""

    def __init__(self, revision: str, known: Iterable[str]) -> None:
        super().__init__(
            f"Unknown revision {revision!r}. Use `head`, `base` or one of {', '.join(known)}."
        )


class UnconfirmedRevertError(SetupError):
    """The revision is older than the database, and reverting was not confirmed."""

    def __init__(self, revision: str, current: str) -> None:
        what = "all tables" if revision == _BASE else "the tables and columns of later migrations"
        super().__init__(
            f"The database is at revision {current}. Reverting to {revision} drops {what}, with "
            "all their data. Pass --yes to confirm."
        )


class _Login(NamedTuple):
    """Who a URL signs in as, and where; the database as its number in its server."""

    role: str
    is_unsafe: bool
    database: str
    number: int


async def migrate(
    migration_url: str | None,
    *,
    application_url: str,
    revision: str = "head",
    may_revert: bool = False,
) -> None:
    """Bring the database to `revision` and let the role of `application_url` use it.

    Without `migration_url`, the role of the application migrates. What can be wrong with the roles
    is found before anything is changed.

    Errors: DatabaseSetupError; UnsafeRoleError; OtherDatabaseError; MissingRightsError;
    NewerDatabaseError; UnknownRevisionError; UnconfirmedRevertError where `revision` is older than
    the database and `may_revert` is not set.
    Idempotency: does nothing to a database that is at `revision`.
    """
    url, variable = migration_url or application_url, _MIGRATION_URL
    if migration_url is None:
        variable = _APPLICATION_URL
    migrating, role = await _login(url, variable=variable), None
    if revision != _BASE:
        login = await _application_login(application_url, migration_url)
        if login.is_unsafe:
            raise UnsafeRoleError(login.role)
        if migrating[2:] != login[2:]:
            raise OtherDatabaseError(application_url, url)
        role = login.role
    with explained(url, variable=variable):
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=partial(
                asyncpg.connect, **driver_arguments(url), timeout=_CONNECT_TIMEOUT_S
            ),
        )
        try:
            async with engine.connect() as connection:
                await _lock(connection)
                await connection.run_sync(_run, revision, may_revert=may_revert)
                await connection.commit()
                if role is not None:
                    await connection.run_sync(_admit, role)
                    await connection.commit()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != asyncpg.InsufficientPrivilegeError.sqlstate:
                raise
            detail = str(error.orig).rpartition(">: ")[2].splitlines()[0]
            raise MissingRightsError(url, variable=variable, detail=detail) from error
        finally:
            await engine.dispose()


async def _application_login(url: str, migration_url: str | None) -> _Login:
    """Return who the processes sign in as.

    Errors: MissingRoleError, which the server itself does not tell from a wrong password.
    """
    try:
        return await _login(url, variable=_APPLICATION_URL)
    except DatabaseSetupError as error:
        role = role_of(url)
        is_refused = isinstance(error.__cause__, asyncpg.InvalidAuthorizationSpecificationError)
        if is_refused and role and migration_url:
            connection = await asyncpg.connect(**driver_arguments(migration_url))
            try:
                known = "SELECT count(*) FROM pg_roles WHERE rolname = $1"
                if not await connection.fetchval(known, role):
                    raise MissingRoleError(role) from None
            finally:
                await connection.close()
        raise


async def _login(url: str, *, variable: str) -> _Login:
    """Return who signs in with a URL. Errors: DatabaseSetupError."""
    with explained(url, variable=variable):
        connection = await asyncpg.connect(**driver_arguments(url), timeout=_CONNECT_TIMEOUT_S)
        try:
            row = await connection.fetchrow(
                "SELECT rolname, rolsuper OR rolbypassrls, datname, pg_database.oid "
                "FROM pg_roles, pg_database "
                "WHERE rolname = current_user AND datname = current_database()"
            )
        finally:
            await connection.close()
    return _Login(*row)


async def _lock(connection: AsyncConnection) -> None:
    """Let one process migrate at a time; the next one then finds the work done."""
    if not await connection.scalar(text(f"SELECT pg_try_advisory_lock({_LOCK})")):
        _log.warning("migration_waits", reason="Another process migrates this database.")
        await connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))


def _run(connection: Connection, revision: str, *, may_revert: bool) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.migrations.__file__).parent))
    config.attributes["connection"] = connection
    # Newest first, as numbers: 0014, 0013, ...
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if revision not in {_HEAD, _BASE, *known}:
        raise UnknownRevisionError(revision, reversed(known))
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise NewerDatabaseError(current, known[0])
    if not _is_older(revision, current):
        command.upgrade(config, revision)
    elif may_revert:
        if revision == _BASE:
            connection.execute(text(_FORGET_READERS))
        command.downgrade(config, revision)
    else:
        raise UnconfirmedRevertError(revision, str(current))


def _is_older(revision: str, current: str | None) -> bool:
    """Return whether `revision` lies before `current`; they are numbered in their order."""
    if current is None or revision == _HEAD:
        return False
    return revision == _BASE or revision < current


def _admit(connection: Connection, role: str) -> None:
    """Make `role` a member of the role that the policies are written for."""
    quoted = connection.dialect.identifier_preparer.quote(role)
    connection.execute(text(f"GRANT {APPLICATION_ROLE} TO {quoted}"))
    # Processes check that the database is migrated.
    connection.execute(text(_FORGET_READERS))
    connection.execute(text(_LET_READ))
    connection.execute(text(f"GRANT SELECT ON alembic_version TO {APPLICATION_ROLE}"))
