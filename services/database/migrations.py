"""Owns applying and taking back migrations, and the login role of the processes.

UnsafeRoleError    the role that the processes use could step over the policies
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

import schema.migrations
from schema.migrations.policies import APPLICATION_ROLE
from services.database.store import asyncpg_url
from services.setup_errors import SetupError


class UnsafeRoleError(SetupError):
    """The application's role is a superuser, or may bypass row-level security."""

    def __init__(self, role: str) -> None:
        super().__init__(
            f"The role {role!r} of DATABASE_URL bypasses row-level security. "
            "Use one without SUPERUSER and BYPASSRLS."
        )


async def migrate(migration_url: str, *, application_url: str, revision: str = "head") -> None:
    """Bring the database to `revision` and let the role of `application_url` use it.

    Errors: UnsafeRoleError; driver errors propagate.
    Idempotency: does nothing to a database that is there already.
    """
    engine = create_async_engine(asyncpg_url(migration_url), connect_args={"timeout": 5})
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run, revision)
            await connection.commit()
            if revision != "base":
                await connection.run_sync(_admit, make_url(application_url).username or "")
                await connection.commit()
    finally:
        await engine.dispose()


def _run(connection: Connection, revision: str) -> None:
    # Several processes may be deployed at once; the second one finds the work done.
    connection.execute(text("SELECT pg_advisory_lock(hashtext('everturn migrations'))"))
    config = Config()
    config.set_main_option("script_location", str(Path(schema.migrations.__file__).parent))
    config.attributes["connection"] = connection
    if revision == "base":
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


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
