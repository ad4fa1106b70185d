"""Queries that set their own actor: the rows they find, and the state they leave."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from sqlmodel import select

from schema.actors import SERVICE, Actor
from schema.tables import ChatRow
from services.database import Database, DatabaseUnavailableError, store
from services.database.queries import acting_query, by_id
from services.knowledge.search import search_statement
from tests.fixtures.actors import actor_of, administrator_of
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack

CHATS = acting_query("SELECT user_id, $1::int AS given FROM chats", parameters=1)
# The policies of this table say nothing of its rows, only of who may.
CREDENTIALS = acting_query("SELECT user_id FROM credentials", parameters=0)
BOUND = """
SELECT coalesce(current_setting('everturn.actor_type', true), '')
    || coalesce(current_setting('everturn.user_id', true), '')
"""
CHAT = by_id(ChatRow)
AT_A_TIME = acting_query(
    "SELECT count(*) AS running, pg_sleep(0.05) FROM pg_stat_activity "
    "WHERE state = 'active' AND query LIKE '%how many at a time%'",
    parameters=0,
)


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Database]:
    opened = Database(stack.addresses.database, pool_size=20)
    yield opened
    await opened.close()


async def test_a_query_finds_only_rows_that_its_actor_may_see(
    database: Database, user: ApiUser, other_user: ApiUser
) -> None:
    await user.create_chat()
    await other_user.create_chat()

    own = await database.fetch(actor_of(user), CHATS, 7)
    all_there_are = await database.fetch(administrator_of(user), CHATS, 7)

    assert [dict(row) for row in own] == [{"user_id": UUID(user.id), "given": 7}]
    assert {UUID(user.id), UUID(other_user.id)} <= {row["user_id"] for row in all_there_are}


async def test_a_reader_finds_only_what_its_actor_may_see(
    database: Database, user: ApiUser, other_user: ApiUser
) -> None:
    chat = UUID(await user.create_chat())
    own, other = (database.reader(actor_of(one)) for one in (user, other_user))

    assert await CHAT.first(own, id=chat) is not None
    assert await CHAT.first(other, id=chat) is None
    assert [row.id for row in await CHAT.all(own, id=chat)] == [chat]


async def test_the_actor_is_set_before_policies_that_read_no_row(
    database: Database, user: ApiUser
) -> None:
    assert await database.fetch(SERVICE, CREDENTIALS)
    assert await database.fetch(administrator_of(user), CREDENTIALS) == []
    assert await database.fetch(actor_of(user), CREDENTIALS) == []


async def test_a_connection_keeps_no_actor(stack: Stack, user: ApiUser) -> None:
    database = Database(stack.addresses.database, pool_size=1)
    try:
        await database.fetch(actor_of(user), CHATS, 7)
        pool = await database._driver._opened()
        assert (await pool.fetchval(BOUND), await pool.fetch("SELECT 1 FROM chats")) == ("", [])
        with pytest.raises(asyncpg.DivisionByZeroError):
            await database.fetch(actor_of(user), acting_query("SELECT 1 / 0", parameters=0))
        assert (await pool.fetchval(BOUND), await pool.fetch("SELECT 1 FROM chats")) == ("", [])
    finally:
        await database.close()


@pytest.mark.parametrize("cache", ["force_custom_plan", "force_generic_plan"])
async def test_the_server_sees_to_who_acts_at_the_top_of_the_plan(
    stack: Stack, user: ApiUser, cache: str
) -> None:
    search = acting_query(search_statement(256), parameters=8)
    given = ("words", "words", UUID(user.id), [0.1] * 256, "embedded", 1, 0.2, 10)
    connection = await asyncpg.connect(stack.addresses.database)
    try:
        await connection.execute(f"SET plan_cache_mode = {cache}")
        plan = [
            row[0]
            for row in await connection.fetch(
                f"EXPLAIN (COSTS OFF) {search}", *given, "user", user.id
            )
        ]
    finally:
        await connection.close()

    assert plan[0] == "Result"
    assert plan[1].strip().startswith("One-Time Filter: ")


async def test_queries_beyond_the_connection_limit_wait(database: Database) -> None:
    query = f"/* how many at a time */ {AT_A_TIME}"

    found = await asyncio.gather(*(database.fetch(SERVICE, query) for _ in range(12)))

    assert 1 < max(row[0]["running"] for row in found) <= 4


async def test_waiting_too_long_for_a_connection_fails(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WAIT_TIMEOUT_S", 0.05)
    long = acting_query("SELECT pg_sleep(0.3)", parameters=0)
    running = [asyncio.ensure_future(database.fetch(SERVICE, long)) for _ in range(4)]
    await asyncio.sleep(0)

    with pytest.raises(DatabaseUnavailableError):
        await database.fetch(SERVICE, CHATS, 7)

    await asyncio.gather(*running)
    assert await database.fetch(SERVICE, CHATS, 7) is not None


async def test_a_crowd_of_one_user_leaves_connections_to_others(
    stack: Stack, user: ApiUser, other_user: ApiUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(stack.addresses.database, pool_size=4)
    monkeypatch.setattr(store, "WAIT_TIMEOUT_S", 60)

    async def work(actor: Actor) -> None:
        async with database.statements(actor) as connection:
            await connection.fetchval("SELECT 1")
        async with database.transaction(actor) as session:
            await session.exec(select(1))

    async with database.statements(actor_of(user)):
        crowd = [asyncio.create_task(work(actor_of(user))) for _ in range(3)]
        for actor in (actor_of(other_user), SERVICE):
            await asyncio.wait_for(work(actor), 20)
        assert not any(task.done() for task in crowd)
        with monkeypatch.context() as patch:
            patch.setattr(store, "WAIT_TIMEOUT_S", 0.05)
            with pytest.raises(DatabaseUnavailableError):
                await work(actor_of(user))
    await asyncio.gather(*crowd)
    await database.close()


async def test_few_slow_queries_of_one_user_run_at_a_time(
    database: Database, user: ApiUser
) -> None:
    query = AT_A_TIME.replace("how many", "how many of one")

    found = await asyncio.gather(*(database.fetch(actor_of(user), query) for _ in range(6)))

    assert {row[0]["running"] for row in found} <= {1, 2}


async def test_a_dead_connection_is_replaced(
    stack: Stack, database: Database, user: ApiUser
) -> None:
    await user.create_chat()
    await database.fetch(actor_of(user), CHATS, 7)
    pid = (await database.fetch(SERVICE, acting_query("SELECT pg_backend_pid()", parameters=0)))[0]
    await stack.inspection.execute("SELECT pg_terminate_backend($1)", pid[0])

    assert len(await database.fetch(actor_of(user), CHATS, 7)) == 1


async def test_an_unreachable_server_is_reported(user: ApiUser) -> None:
    nowhere = Database("postgresql://everturn:none@127.0.0.1:1/everturn")

    with pytest.raises(DatabaseUnavailableError):
        await nowhere.fetch(actor_of(user), CHATS, 7)
