"""What is wrong with roles, rights and revisions is said in one line, before anything changes."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from services.database import Database
from services.database.migrations import (
    MissingRightsError,
    MissingRoleError,
    NewerDatabaseError,
    OtherDatabaseError,
    UnsafeRoleError,
    migrate,
)
from services.database.startup import (
    DatabaseSetupError,
    SchemaError,
    newest_revision,
    require_schema,
)
from tests.fixtures.stack import Stack
from tests.fixtures.stack_servers import with_database
from tests.running_everturn.waiting import eventually


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[tuple[str, str]]:
    """A new database: its address for the superuser, and for the application."""
    name = f"new_{uuid4().hex}"
    await stack.inspection.execute(f'CREATE DATABASE "{name}"')
    yield (
        with_database(stack.addresses.superuser, name),
        with_database(stack.addresses.database, name),
    )
    await stack.inspection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def bypassing(stack: Stack) -> AsyncIterator[str]:
    role = f"bypassing_{uuid4().hex}"
    await stack.inspection.execute(f"CREATE ROLE {role} LOGIN BYPASSRLS PASSWORD 'hush'")
    yield role
    await stack.inspection.execute(f"DROP ROLE {role}")


def signed_in_as(url: str, role: str) -> str:
    return f"postgresql://{role}:hush@{url.rpartition('@')[2]}"


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def check_unchanged(superuser: str) -> None:
    tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert await ask(superuser, tables) == 0


async def test_a_role_that_does_not_exist_is_named_before_anything_changes(
    database: tuple[str, str],
) -> None:
    superuser, application = database

    with pytest.raises(MissingRoleError) as refused:
        await migrate(superuser, application_url=signed_in_as(application, "nobody_here"))

    assert str(refused.value) == (
        "The role 'nobody_here' of DATABASE_URL doesn't exist. Create it: "
        "CREATE ROLE \"nobody_here\" LOGIN PASSWORD '...'"
    )
    await check_unchanged(superuser)


async def test_a_role_that_bypasses_the_policies_is_refused_before_anything_changes(
    database: tuple[str, str], bypassing: str
) -> None:
    superuser, application = database

    with pytest.raises(UnsafeRoleError):
        await migrate(superuser, application_url=superuser)
    with pytest.raises(UnsafeRoleError, match=bypassing):
        await migrate(superuser, application_url=signed_in_as(application, bypassing))

    await check_unchanged(superuser)


async def test_where_rights_are_lacking_the_url_for_migrations_is_named(
    database: tuple[str, str],
) -> None:
    superuser, application = database

    with pytest.raises(MissingRightsError) as refused:
        await migrate(None, application_url=application)

    said = str(refused.value)
    assert said.startswith("The role of DATABASE_URL (everturn@")
    assert "permission denied for schema public" in said
    assert "Set EVERTURN_MIGRATION_DATABASE_URL to the same database with the role" in said
    await check_unchanged(superuser)


async def test_two_urls_must_lead_to_one_database(stack: Stack, database: tuple[str, str]) -> None:
    superuser, _ = database

    with pytest.raises(OtherDatabaseError, match="lead to different databases"):
        await migrate(superuser, application_url=stack.addresses.database)


@pytest.mark.parametrize("is_missing", [True, False], ids=["database", "server"])
async def test_the_two_connections_are_told_apart(
    database: tuple[str, str],
    is_missing: bool,  # noqa: FBT001 -- a case
) -> None:
    superuser, application = database
    wrong = {
        url: with_database(url, "missing") if is_missing else "postgresql://ada:hush@127.0.0.1:1/x"
        for url in (superuser, application)
    }

    with pytest.raises(DatabaseSetupError) as of_application:
        await migrate(superuser, application_url=wrong[application])
    with pytest.raises(DatabaseSetupError) as of_migration:
        await migrate(wrong[superuser], application_url=application)

    reason = "doesn't exist" if is_missing else "can't be reached"
    for refused, variable in (
        (of_application, "DATABASE_URL"),
        (of_migration, "EVERTURN_MIGRATION_DATABASE_URL"),
    ):
        said = str(refused.value)
        assert said.startswith(f"The database of {variable} (")
        assert reason in said
        assert "hush" not in said


async def test_a_database_of_a_newer_version_is_left_alone(database: tuple[str, str]) -> None:
    superuser, application = database
    await migrate(superuser, application_url=application)
    connection = await asyncpg.connect(superuser)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()

    with pytest.raises(NewerDatabaseError) as refused:
        await migrate(superuser, application_url=application)

    assert str(refused.value) == (
        f"The database is at revision 9999, but the newest that this version of Everturn knows is "
        f"{newest_revision()}. Run the newer version that migrated it."
    )
    # During a deployment it serves processes of both versions.
    with capture_logs() as logs:
        await check_schema(application)
    assert [log["event"] for log in logs] == ["database_is_newer"]


async def check_schema(url: str) -> None:
    opened = Database(url)
    try:
        await require_schema(opened, url)
    finally:
        await opened.close()


async def test_processes_refuse_a_database_that_is_not_migrated(
    database: tuple[str, str],
) -> None:
    superuser, application = database

    with pytest.raises(SchemaError, match=r"has not been migrated; .* Run `everturn migrate`"):
        await check_schema(application)
    await migrate(superuser, application_url=application, revision="0028")
    with pytest.raises(SchemaError, match="is at revision 0028; this version of Everturn needs"):
        await check_schema(application)
    await migrate(superuser, application_url=application)

    await check_schema(application)


async def test_a_second_migration_says_that_it_waits(database: tuple[str, str]) -> None:
    superuser, application = database
    first = await asyncpg.connect(superuser)
    await first.execute("SELECT pg_advisory_lock(hashtext('everturn migrations'))")

    with capture_logs() as logs:
        second = asyncio.create_task(migrate(superuser, application_url=application))

        async def said() -> list[str]:
            return [log["event"] for log in logs]

        await eventually(said, lambda events: "migration_waits" in events)
        assert not second.done()
        await first.close()
        await second

    assert await ask(superuser, "SELECT version_num FROM alembic_version") == newest_revision()
