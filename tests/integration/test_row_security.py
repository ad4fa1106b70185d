"""Row-level security, by reflection: in every table, no user reads or writes another's rows."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text

from schema.actors import SERVICE, Actor, acting_user
from schema.ids import UserId
from schema.tables import ChatRow
from services.database import Database
from services.database.migrations import UnsafeRoleError, migrate
from tests.fixtures.api_user import ApiUser
from tests.fixtures.database import Inspection
from tests.fixtures.stack import Stack


@asynccontextmanager
async def acting(stack: Stack, actor: Actor | None) -> AsyncIterator[asyncpg.Connection]:
    """Open a transaction as the application's role, with the actor bound, or none."""
    connection = await asyncpg.connect(stack.addresses.database)
    transaction = connection.transaction()
    try:
        await transaction.start()
        if actor is not None:
            await connection.execute(
                "SELECT set_config('everturn.actor_type', $1, true), "
                "set_config('everturn.user_id', $2, true)",
                actor.type.value,
                str(actor.user_id),
            )
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def attempted(connection: asyncpg.Connection, statement: str, *values: object) -> int:
    """Return how many rows a statement touched; a refusal touches none."""
    try:
        async with connection.transaction():
            status: str = await connection.execute(statement, *values)
    except asyncpg.InsufficientPrivilegeError:
        return 0
    return int(status.rsplit(maxsplit=1)[-1])


async def test_every_table_has_row_security_enabled_forced_and_policies(
    inspection: Inspection,
) -> None:
    found = await inspection.rows(
        "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS secure, "
        "(SELECT count(*) FROM pg_policies p WHERE p.schemaname = 'public' "
        "AND p.tablename = c.relname) AS policies "
        "FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace "
        "AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
    )

    assert len(found) >= 30
    assert [row["relname"] for row in found if not row["secure"] or row["policies"] == 0] == []


async def test_the_role_of_the_processes_cannot_bypass_the_policies(stack: Stack) -> None:
    async with acting(stack, None) as connection:
        role = await connection.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, "
            "pg_has_role('pg_database_owner', 'member') AS owner "
            "FROM pg_roles WHERE rolname = current_user"
        )
        owned = await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND pg_has_role(current_user, relowner, 'member')"
        )

    assert role is not None
    assert set(dict(role).values()) == {False}
    assert owned == 0


async def test_a_role_that_could_step_over_the_policies_is_refused(stack: Stack) -> None:
    with pytest.raises(UnsafeRoleError):
        await migrate(stack.addresses.superuser, application_url=stack.addresses.superuser)


async def test_processes_cannot_change_the_schema_version(stack: Stack) -> None:
    async with acting(stack, SERVICE) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE alembic_version SET version_num = 'x'")


async def test_users_cannot_hand_their_rows_to_others(user: ApiUser, stack: Stack) -> None:
    owner = acting_user(UserId(UUID(user.id)))
    for table in ("chats", "turns", "messages", "steps", "tool_calls", "ledger"):
        async with acting(stack, owner) as connection:
            assert await attempted(connection, f"UPDATE {table} SET user_id = $1", uuid4()) == 0, (
                table
            )


async def test_users_cannot_make_themselves_administrators(user: ApiUser, stack: Stack) -> None:
    async with acting(stack, acting_user(UserId(UUID(user.id)))) as connection:
        assert await attempted(connection, "UPDATE users SET role = 'admin'") == 0


async def test_no_actor_deletes_from_the_ledger(user: ApiUser, stack: Stack) -> None:
    for actor in (SERVICE, acting_user(UserId(UUID(user.id)))):
        async with acting(stack, actor) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("DELETE FROM ledger")


BOUND = text(
    "SELECT coalesce(current_setting('everturn.actor_type', true), '') "
    "|| coalesce(current_setting('everturn.user_id', true), '')"
)


class RolledBackError(Exception):
    """Ends a transaction."""


def roll_back() -> None:
    raise RolledBackError


async def bound_to_pooled(database: Database) -> tuple[str, int]:
    """Return what a pooled connection has bound before anybody binds, and the chats it sees."""
    async with database._engine.connect() as bare:
        chats = await bare.execute(text("SELECT count(*) FROM chats"))
        return (await bare.execute(BOUND)).scalar_one(), chats.scalar_one()


@pytest.mark.parametrize("end", [None, roll_back], ids=["commit", "rollback"])
async def test_a_pooled_connection_keeps_no_actor(
    user: ApiUser, stack: Stack, end: Callable[[], None] | None
) -> None:
    database = Database(stack.addresses.database, pool_size=1)
    owner = acting_user(UserId(UUID(user.id)))
    try:
        with suppress(RolledBackError):
            async with database.transaction(owner) as session:
                connection = await session.connection()
                assert (await connection.execute(BOUND)).scalar_one() == f"user{user.id}"
                if end is not None:
                    end()

        assert await bound_to_pooled(database) == ("", 0)
    finally:
        await database.close()


async def test_an_actor_whose_transaction_never_began_is_not_inherited(stack: Stack) -> None:
    database = Database(stack.addresses.database, pool_size=1)
    try:
        async with database.transaction(SERVICE) as session:
            await session.connection()
        after_nothing = await bound_to_pooled(database)
        async with database.transaction(SERVICE) as session, session.begin_nested():
            await session.connection()
        after_a_savepoint = await bound_to_pooled(database)
    finally:
        await database.close()

    assert (after_nothing, after_a_savepoint) == (("", 0), ("", 0))


async def test_a_transaction_that_fails_stores_nothing(user: ApiUser, stack: Stack) -> None:
    chat_id = uuid4()
    owner = acting_user(UserId(UUID(user.id)))
    with suppress(RolledBackError):
        async with stack.foundation.database.transaction(owner) as session:
            session.add(ChatRow(id=chat_id, user_id=owner.user_id, title="Gone"))
            await session.flush()
            roll_back()

    assert await stack.inspection.rows("SELECT 1 FROM chats WHERE id = $1", chat_id) == []


async def test_a_users_own_row_cannot_reference_another_users_chat(
    stack: Stack, user: ApiUser, other_user: ApiUser
) -> None:
    chat = await user.create_chat()
    intruder = acting_user(UserId(UUID(other_user.id)))

    with pytest.raises(asyncpg.ForeignKeyViolationError, match="turns_in_own_chat"):
        async with stack.foundation.database.statements(intruder) as connection:
            await connection.execute(
                "INSERT INTO turns (id, chat_id, user_id, user_message_id, active, model) "
                "VALUES ($1, $2, $3, $1, false, 'claude-haiku-5-5')",
                uuid4(),
                UUID(chat),
                intruder.user_id,
            )
