"""The commands that prepare servers: the database with its first administrator, and Temporal.

What only some runs need is imported by those: `everturn dev` waits for the migration alone.
"""
# ruff: noqa: PLC0415 -- see above

from datetime import timedelta

from services.database.migrations import migrate
from services.settings import Settings
from workers.startup import await_start_signal


async def migrate_database(settings: Settings, *, revision: str, may_revert: bool = False) -> None:
    """Bring the database to `revision` with the rights of the migration URL.

    At the newest revision, also create the first administrator, if the settings name one.

    Errors: those of `migrate`.
    """
    await await_start_signal()
    application_url = settings.database_url.get_secret_value()
    migration_url = settings.migration_database_url
    await migrate(
        (migration_url.get_secret_value() if migration_url else None) or None,
        application_url=application_url,
        revision=revision,
        may_revert=may_revert,
    )
    if revision == "head" and settings.admin_email and settings.admin_password:
        from services.auth.accounts import ensure_administrator
        from services.auth.credentials import Passwords
        from services.database import Database

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


async def set_up_temporal(
    settings: Settings, *, create_namespace: bool, retention: timedelta
) -> None:
    """Add the search attributes that the namespace lacks, and the namespace if asked to.

    Errors: TemporalConfigError; TemporalUnreachableError; NamespaceError.
    """
    from temporalio.service import RPCError

    from activities.namespace import set_up_namespace
    from workers.composition.temporal import (
        TemporalUnreachableError,
        connect_temporal,
        unreachable,
    )

    client = await connect_temporal(settings, lazy=True)
    try:
        await set_up_namespace(client, create=create_namespace, retention=retention)
    except (RPCError, RuntimeError) as error:
        raise TemporalUnreachableError(unreachable(settings, error)) from error
