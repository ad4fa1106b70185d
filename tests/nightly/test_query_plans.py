"""Every read of the API finds its rows by an index, on large tables and under the policies."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import event

from api.app import create_app
from schema.ids import UserId
from services.auth.credentials import AccessTokens
from services.database import connections
from services.database.connections import SERVER_SETTINGS
from services.database.migrations import migrate
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client
from tests.fixtures.stack_servers import with_database
from tests.load.population import ADMIN_EMAIL, Size, email_of, populate
from tests.load.scale import FURTHER, THINGS_OF_USER, documented_reads
from workers.composition.api import open_api_services
from workers.composition.foundation import Foundation, open_foundation

# Left out are people and documents: what administrators look for inside of names and titles is
# matched behind the policies, where no index helps, and these tables are small.
LARGE: Final = frozenset(
    {
        *("chats", "turns", "messages", "steps", "tool_calls", "ledger", "feedback"),
        *("memories", "passages"),
    }
)


@dataclass
class Populated:
    """An API on a database of real size, and what it asked of it."""

    http: httpx.AsyncClient
    role_url: str
    users: dict[str, UserId]
    tokens: AccessTokens
    things: dict[str, object]
    asked: list[tuple[str, tuple[Any, ...]]]

    async def get(self, path: str) -> None:
        """Ask for a path as the user, or as the administrator."""
        self.asked.clear()
        who = "admin" if path.startswith("/admin/") else "user"
        headers = {"Authorization": f"Bearer {self.tokens.issue(self.users[who])}"}
        response = await self.http.get(path.format(**self.things), headers=headers)
        assert response.status_code == 200, response.text

    async def plans(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the plan of each statement that was asked, as the application's role."""
        kind = "admin" if path.startswith("/admin/") else "user"
        connection = await asyncpg.connect(self.role_url, server_settings=SERVER_SETTINGS)
        try:
            for statement, values in [*self.asked]:
                async with connection.transaction():
                    await connection.execute(
                        "SELECT set_config('everturn.actor_type', $1, true), "
                        "set_config('everturn.user_id', $2, true)",
                        kind,
                        str(self.users[kind]),
                    )
                    found = await connection.fetchval(
                        f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement}", *values
                    )
                    yield json.loads(found)[0]["Plan"]
        finally:
            await connection.close()


@pytest.fixture(scope="module")
async def populated(stack: Stack) -> AsyncIterator[Populated]:
    """Fill a database of its own, and serve the API on it."""
    name = f"populated_{uuid4().hex}"
    await stack.inspection.execute(f'CREATE DATABASE "{name}"')
    superuser = with_database(stack.addresses.superuser, name)
    role_url = with_database(stack.addresses.database, name)
    await migrate(superuser, application_url=role_url)
    await populate(superuser, Size.scaled(0.05))
    settings = stack.settings.model_copy(update={"database_url": SecretStr(role_url)})
    assert settings.auth_secret is not None
    tokens = AccessTokens(settings.auth_secret.get_secret_value(), lifetime=timedelta(hours=1))
    asked: list[tuple[str, tuple[Any, ...]]] = []
    with pytest.MonkeyPatch.context() as patched:
        noting_plain_statements(patched, asked)
        async with (
            open_foundation(settings) as foundation,
            open_api_services(foundation, stack.temporal, eager=False) as services,
            serving(create_app(services, max_body_bytes=settings.max_body_bytes)) as origin,
            api_client(origin) as http,
        ):
            noting_statements_of_the_mapper(foundation, asked)
            users, things = await _people(superuser)
            yield Populated(http, role_url, users, tokens, things, asked)
    await stack.inspection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def is_a_question(statement: str) -> bool:
    return statement.lstrip().startswith(("SELECT", "WITH")) and "set_config" not in statement


def noting_statements_of_the_mapper(
    foundation: Foundation, asked: list[tuple[str, tuple[Any, ...]]]
) -> None:
    def note(*happening: Any) -> None:  # noqa: ANN401 -- as SQLAlchemy calls it
        _, _, statement, values, _, _ = happening
        if is_a_question(statement):
            asked.append((statement, tuple(values)))

    event.listen(foundation.database._engine.sync_engine, "before_cursor_execute", note)


def noting_plain_statements(
    patched: pytest.MonkeyPatch, asked: list[tuple[str, tuple[Any, ...]]]
) -> None:
    prepare = connections._read_json

    def note(query: asyncpg.connection.LoggedQuery) -> None:
        if is_a_question(query.query):
            asked.append((query.query, tuple(query.args or ())))

    async def prepare_noting(connection: Any) -> None:  # noqa: ANN401 -- as the driver calls it
        await prepare(connection)
        connection.add_query_logger(note)

    patched.setattr(connections, "_read_json", prepare_noting)


async def _people(superuser: str) -> tuple[dict[str, UserId], dict[str, object]]:
    connection = await asyncpg.connect(superuser)
    try:
        ids = {
            who: UserId(await connection.fetchval("SELECT id FROM users WHERE email = $1", email))
            for who, email in (("user", email_of(1)), ("admin", ADMIN_EMAIL))
        }
        things: dict[str, object] = {"name": "calculator", "number": 1}
        for thing, query in THINGS_OF_USER.items():
            values: list[UUID] = [ids["user"]] if "$1" in query else []
            things[thing] = await connection.fetchval(query, *values)
    finally:
        await connection.close()
    return ids, things


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize("path", [*documented_reads(), *FURTHER])
async def test_no_large_table_is_read_through(populated: Populated, path: str) -> None:
    await populated.get(path)

    read_through = {
        node["Relation Name"]
        async for plan in populated.plans(path)
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
    }

    assert read_through == set()


async def test_every_statement_is_inspected(populated: Populated) -> None:
    await populated.get("/chats")
    by_the_mapper = [statement for statement, _ in populated.asked]
    await populated.get("/admin/turns/{turn_id}")
    plain_statements = [statement for statement, _ in populated.asked]

    assert any("chats" in statement for statement in by_the_mapper)
    assert any("ledger" in statement for statement in plain_statements)
