"""Applies and reverts migrations, and gives the processes' login role its rights.

UnsafeRoleError          the role of the processes could bypass the policies
UnknownRevisionError     there is no migration of that name
UnconfirmedRevertError   reverting migrations deletes data
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

import schema.migrations
from schema.migrations.policies import APPLICATION_ROLE
from services.database.store import asyncpg_url
from services.setup_errors import SetupError

_BASE: Final = "base"
_HEAD: Final = "head"


class UnsafeRoleError(SetupError):
    """The application's role is a superuser, or may bypass row-level security."""

    def __init__(self, role: str) -> None:
        super().__init__(
            f"The role {role!r} of DATABASE_URL bypasses row-level security. "
            "Use one without SUPERUSER and BYPASSRLS."
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


async def migrate(
    migration_url: str, *, application_url: str, revision: str = "head", may_revert: bool = False
) -> None:
    """Bring the database to `revision` and let the role of `application_url` use it.

    Errors: UnknownRevisionError; UnconfirmedRevertError where `revision` is older than the
    database and `may_revert` is not set; UnsafeRoleError; driver errors propagate.
    Idempotency: does nothing to a database that is at `revision`.
    """
    engine = create_async_engine(asyncpg_url(migration_url), connect_args={"timeout": 5})
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run, revision, may_revert=may_revert)
            await connection.commit()
            if revision != _BASE:
                await connection.run_sync(_admit, make_url(application_url).username or "")
                await connection.commit()
    finally:
        await engine.dispose()


def _run(connection: Connection, revision: str, *, may_revert: bool) -> None:
    # Several processes may migrate at once; the second one finds the work done.
    connection.execute(text("SELECT pg_advisory_lock(hashtext('everturn migrations'))"))
    config = Config()
    config.set_main_option("script_location", str(Path(schema.migrations.__file__).parent))
    config.attributes["connection"] = connection
    # Newest first, as numbers: 0014, 0013, ...
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if revision not in {_HEAD, _BASE, *known}:
        raise UnknownRevisionError(revision, reversed(known))
    current = MigrationContext.configure(connection).get_current_revision()
    if not _is_older(revision, current):
        command.upgrade(config, revision)
    elif may_revert:
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
    unsafe = connection.execute(
        text("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = :role"),
        {"role": role},
    ).scalar_one()
    if unsafe:
        raise UnsafeRoleError(role)
    quoted = connection.dialect.identifier_preparer.quote(role)
    connection.execute(text(f"GRANT {APPLICATION_ROLE} TO {quoted}"))
