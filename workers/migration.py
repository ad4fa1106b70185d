"""The process that migrates a database: its schema, and its first administrator."""

from services.auth.accounts import ensure_administrator
from services.auth.credentials import Passwords
from services.database import Database
from services.database.migrations import migrate
from services.settings import Settings
from workers.startup import await_start_signal


async def migrate_database(settings: Settings, *, revision: str, may_revert: bool = False) -> None:
    """Bring the database to `revision` with the rights of the migration URL.

    At the newest revision, also create the first administrator, if the settings name one.

    Errors: those of `migrate`; OSError and driver errors where the database can't be reached.
    """
    await await_start_signal()
    application_url = settings.database_url.get_secret_value()
    migration_url = settings.migration_database_url
    await migrate(
        application_url if migration_url is None else migration_url.get_secret_value(),
        application_url=application_url,
        revision=revision,
        may_revert=may_revert,
    )
    if revision == "head" and settings.admin_email and settings.admin_password:
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
