"""Migrations apply, apply again and are taken back cleanly."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import uuid4

import asyncpg
import pytest

from schema.ids import new_id
from schema.migrations.policies import APPLICATION_ROLE
from services.database.migrations import (
    UnconfirmedRevertError,
    UnknownRevisionError,
    migrate,
)
from tests.fixtures.stack import Stack
from tests.fixtures.stack_servers import with_database


@pytest.fixture
async def empty_database(stack: Stack) -> AsyncIterator[tuple[str, str]]:
    """A new database: its address for the superuser, and for the application."""
    name = f"empty_{uuid4().hex}"
    await stack.inspection.execute(f'CREATE DATABASE "{name}"')
    yield (
        with_database(stack.addresses.superuser, name),
        with_database(stack.addresses.database, name),
    )
    await stack.inspection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def owned_database(stack: Stack) -> AsyncIterator[tuple[str, str]]:
    """A new database as a managed server has it: its address for its owner, and the application.

    The owner is no superuser. One has created the extension and, in this server, the role that the
    policies are for; in a server of its own, the owner creates that role.
    """
    name = f"owned_{uuid4().hex}"
    await stack.inspection.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'hush'")
    await stack.inspection.execute(f"GRANT {APPLICATION_ROLE} TO {name} WITH ADMIN OPTION")
    await stack.inspection.execute(f"CREATE DATABASE {name} OWNER {name}")
    superuser = await asyncpg.connect(with_database(stack.addresses.superuser, name))
    await superuser.execute("CREATE EXTENSION vector")
    await superuser.close()
    application = with_database(stack.addresses.database, name)
    yield f"postgresql://{name}:hush@{application.rpartition('@')[2]}", application
    await stack.inspection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await stack.inspection.execute(f"DROP OWNED BY {name} CASCADE")
    await stack.inspection.execute(f"DROP ROLE {name}")


async def objects_in(url: str) -> dict[str, int]:
    """Count the objects in the schema."""
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind = 'r' AND relname <> 'alembic_version') AS tables, "
            "(SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
            "AND proname LIKE 'everturn%') AS functions, "
            "(SELECT count(*) FROM pg_policies) AS policies"
        )
    finally:
        await connection.close()
    assert row is not None
    return dict(row)


async def test_migrations_go_up_again_down_and_up(empty_database: tuple[str, str]) -> None:
    superuser, application = empty_database

    await migrate(superuser, application_url=application)
    first = await objects_in(superuser)
    await migrate(superuser, application_url=application)
    again = await objects_in(superuser)
    await migrate(superuser, application_url=application, revision="base", may_revert=True)
    down = await objects_in(superuser)
    await migrate(superuser, application_url=application)
    up = await objects_in(superuser)

    assert first["tables"] >= 9
    assert first == again == up
    assert down == {"tables": 0, "functions": 0, "policies": 0}


_BUDGET = "INSERT INTO budgets (scope, subject_id, user_id, budget_usd) VALUES ('user', $1, $1, 10)"
_CHARGE = """
INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status, estimated, cost_usd)
VALUES ($1, $1, $1, 1, 1, 'model', 'm', 'settled', true, 6)
"""
_RESERVE = """
SELECT granted, scope, unit, current_setting('everturn.actor_type') AS actor_type
FROM everturn_reserve($1, NULL, $1, 2, 'model', '', NULL, false, $2, 0, 0, 1, 1)
"""


async def test_an_owner_who_is_no_superuser_migrates_and_budgets_hold(
    owned_database: tuple[str, str],
) -> None:
    owner, application = owned_database
    user_id = new_id()

    await migrate(owner, application_url=application)
    await migrate(owner, application_url=application, revision="base", may_revert=True)
    await migrate(owner, application_url=application)

    connection = await asyncpg.connect(application)
    try:
        await connection.execute("SET everturn.actor_type = 'service'")
        await connection.execute(
            "INSERT INTO users (id, email) VALUES ($1, 'a@b.example')", user_id
        )
        await connection.execute(_BUDGET, user_id)
        await connection.execute(_CHARGE, user_id)
        alerts = await connection.fetchval(
            "SELECT array_agg(details ->> 'threshold') FROM alerts WHERE user_id = $1", user_id
        )
        # Users may not read plans' and the installation's budgets; the function does, as the
        # service.
        await connection.execute("SET everturn.actor_type = 'user'")
        await connection.execute(f"SET everturn.user_id = '{user_id}'")
        refused = await connection.fetchrow(_RESERVE, user_id, Decimal(5))
        fitting = await connection.fetchrow(_RESERVE, user_id, Decimal(4))
        parameters = await connection.fetchval(
            "SELECT count(*) FROM pg_proc WHERE array_to_string(proconfig, ' ') LIKE '%everturn.%'"
        )
    finally:
        await connection.close()
    assert alerts == ["50"]
    assert tuple(refused or ()) == (None, "user", "usd", "user")
    assert tuple(fitting or ()) == (1, None, None, "user")
    assert parameters == 0


async def test_the_default_plan_is_described_for_its_users(
    empty_database: tuple[str, str],
) -> None:
    superuser, application = empty_database

    await migrate(superuser, application_url=application)

    connection = await asyncpg.connect(superuser)
    try:
        described = await connection.fetchval("SELECT description FROM plans WHERE is_default")
        forced = await connection.fetchval(
            "SELECT relforcerowsecurity FROM pg_class WHERE oid = 'plans'::regclass"
        )
    finally:
        await connection.close()
    assert (described, forced) == ("For users without another plan.", True)


_PASSAGE = """
INSERT INTO passages (id, document_id, version, user_id, position, content, start_char, end_char)
VALUES (gen_random_uuid(), gen_random_uuid(), 1, gen_random_uuid(), 0, $1, 0, 1)
"""


async def test_the_words_of_earlier_passages_are_folded(empty_database: tuple[str, str]) -> None:
    superuser, application = empty_database
    await migrate(superuser, application_url=application, revision="0017")
    connection = await asyncpg.connect(superuser)
    try:
        # Without the document that it belongs to.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(_PASSAGE, "of\ufb01ce")
        await migrate(superuser, application_url=application)
        folded = await connection.fetchrow("SELECT content, search_text::text FROM passages")
        await migrate(superuser, application_url=application, revision="0017", may_revert=True)
        before = await connection.fetchrow("SELECT content, search_text::text FROM passages")
    finally:
        await connection.close()
    assert folded is not None
    assert before is not None
    assert tuple(folded) == ("of\ufb01ce", "'offic':1")
    assert tuple(before) == ("of\ufb01ce", "'of\ufb01c':1")


async def test_days_begin_with_the_ledger_that_was_there(empty_database: tuple[str, str]) -> None:
    superuser, application = empty_database
    await migrate(superuser, application_url=application, revision="0020")
    connection = await asyncpg.connect(superuser)
    user_id = new_id()
    try:
        await connection.execute(
            "INSERT INTO users (id, email) VALUES ($1, 'a@b.example')", user_id
        )
        for status, tokens in (("settled", 2**62), ("lost", 2**62), ("open", 7)):
            await connection.execute(
                "INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status,"
                " estimated, input_tokens, output_tokens, cost_usd)"
                " VALUES ($1, $2, $1, 1, 1, 'model', 'm', $3, true, $4, $4, 2)",
                *(new_id(), user_id, status, tokens),
            )
        await migrate(superuser, application_url=application)
        [kept] = await connection.fetch(
            "SELECT settled_usd, settled_tokens FROM usage_days"
            " WHERE scope = 'user' AND subject_id = $1",
            user_id,
        )
        await migrate(superuser, application_url=application, revision="0029", may_revert=True)
        [charged] = await connection.fetch(
            "SELECT charged_usd, charged_tokens, settled_usd, settled_tokens FROM usage_days"
            " WHERE scope = 'user' AND subject_id = $1",
            user_id,
        )
    finally:
        await connection.close()
    assert tuple(kept) == (Decimal(4), 2**64)
    assert tuple(charged) == (Decimal(6), 2**64 + 14, Decimal(4), 2**64)


_MEMORY = """
INSERT INTO memories (id, user_id, kind, content)
VALUES (gen_random_uuid(), gen_random_uuid(), 'fact', $1)
"""


async def test_earlier_memories_get_their_words(empty_database: tuple[str, str]) -> None:
    superuser, application = empty_database
    await migrate(superuser, application_url=application, revision="0024")
    connection = await asyncpg.connect(superuser)
    try:
        # Without the user whom they belong to.
        await connection.execute("SET session_replication_role = replica")
        for content in ("Likes \uff34ea.", "likes tea!", "\u559c\u6b22\u8336"):
            await connection.execute(_MEMORY, content)
        await migrate(superuser, application_url=application)
        # A trigger that always runs sets them here, too.
        await connection.execute(_MEMORY, "Likes jazz")
        words = await connection.fetch(
            "SELECT search_text::text AS words, count(*) FROM memories GROUP BY words_key, words "
            'ORDER BY search_text::text COLLATE "C"'
        )
        forced = await connection.fetchval(
            "SELECT relforcerowsecurity FROM pg_class WHERE oid = 'memories'::regclass"
        )
        await migrate(superuser, application_url=application, revision="0024", may_revert=True)
        left = await connection.fetchval("SELECT count(*) FROM memories")
    finally:
        await connection.close()
    assert [tuple(row) for row in words] == [
        ("'jazz' 'like'", 1),
        ("'like' 'tea'", 2),
        ("'\u559c' '\u559c\u6b22' '\u6b22' '\u6b22\u8336' '\u8336'", 1),
    ]
    assert (forced, left) == (True, 4)


_TURN = """
INSERT INTO turns (id, chat_id, user_id, user_message_id, active, model, status)
VALUES ($1, $2, $2, gen_random_uuid(), false, 'm', 'completed')
"""
_SAID = """
INSERT INTO messages (id, chat_id, user_id, turn_id, role, content, superseded)
VALUES ($1, $2, $2, $3, $4, $5, $6)
"""
_PLACES = """
SELECT messages.content, parent.content AS follows, chats.leaf_id = messages.id AS is_leaf
FROM messages JOIN chats ON chats.id = messages.chat_id
LEFT JOIN messages AS parent ON parent.id = messages.parent_id ORDER BY messages.id
"""


async def test_earlier_messages_get_their_place_in_the_conversation(
    empty_database: tuple[str, str],
) -> None:
    superuser, application = empty_database
    await migrate(superuser, application_url=application, revision="0032")
    connection = await asyncpg.connect(superuser)
    chat = new_id()
    # The second question was answered three times, the third one not at all.
    turns: list[tuple[tuple[str, ...], bool]] = [
        (("u1", "a1"), False),
        (("u2", "a2"), True),
        (("u2'", "a2'"), True),
    ]
    turns += [(("u2''", "a2''"), False), (("u3",), False), (("u4", "a4"), False)]
    try:
        await connection.execute("INSERT INTO users (id, email) VALUES ($1, 'a@b.example')", chat)
        await connection.execute(
            "INSERT INTO chats (id, user_id, title) VALUES ($1, $1, 'A chat')", chat
        )
        for messages, superseded in turns:
            turn = new_id()
            await connection.execute(_TURN, turn, chat)
            for role, content in zip(("user", "assistant"), messages, strict=False):
                said = (new_id(), chat, turn, role, content, superseded)
                await connection.execute(_SAID, *said)
        await migrate(superuser, application_url=application)
        rows = await connection.fetch(_PLACES)
        await connection.execute("DELETE FROM users")
        left = await connection.fetchval("SELECT count(*) FROM messages")
    finally:
        await connection.close()
    assert [(row["content"], row["follows"]) for row in rows] == [
        *[("u1", None), ("a1", "u1"), ("u2", "a1"), ("a2", "u2"), ("u2'", "a1"), ("a2'", "u2'")],
        *[("u2''", "a1"), ("a2''", "u2''"), ("u3", "a2''"), ("u4", "u3"), ("a4", "u4")],
    ]
    assert [row["content"] for row in rows if row["is_leaf"]] == ["a4"]
    assert left == 0


async def test_going_back_to_an_older_revision_needs_a_confirmation(
    empty_database: tuple[str, str],
) -> None:
    superuser, application = empty_database
    await migrate(superuser, application_url=application)
    newest = await objects_in(superuser)

    for revision in ("base", "0003"):
        with pytest.raises(UnconfirmedRevertError, match="Pass --yes"):
            await migrate(superuser, application_url=application, revision=revision)
    unchanged = await objects_in(superuser)
    await migrate(superuser, application_url=application, revision="0003", may_revert=True)
    older = await objects_in(superuser)
    await migrate(superuser, application_url=application, revision="0004")
    await migrate(superuser, application_url=application)

    assert unchanged == newest == await objects_in(superuser)
    assert 0 < older["tables"] < newest["tables"]


async def test_an_unknown_revision_is_refused(empty_database: tuple[str, str]) -> None:
    superuser, application = empty_database

    with pytest.raises(UnknownRevisionError, match="Unknown revision '0099'"):
        await migrate(superuser, application_url=application, revision="0099")


async def has_scratch_space(url: str) -> list[bool]:
    """Return the objects outside the policies' reach that a role can create."""
    connection = await asyncpg.connect(url)
    can = []
    try:
        for statement in ("CREATE TEMPORARY TABLE t (a text)", "SELECT lo_create(0)"):
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                can.append(False)
            else:
                can.append(True)
    finally:
        await connection.close()
    return can


async def test_the_application_has_no_space_that_the_policies_do_not_reach(
    empty_database: tuple[str, str],
) -> None:
    superuser, application = empty_database

    await migrate(superuser, application_url=application)
    up = await has_scratch_space(application)
    await migrate(superuser, application_url=application, revision="base", may_revert=True)
    down = await has_scratch_space(application)

    assert (up, down) == ([False, False], [True, True])


async def test_processes_that_migrate_at_the_same_time_do_it_once(
    empty_database: tuple[str, str],
) -> None:
    superuser, application = empty_database

    await asyncio.gather(*(migrate(superuser, application_url=application) for _ in range(3)))

    assert (await objects_in(superuser))["tables"] >= 9
