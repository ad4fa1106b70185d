"""Who may do what to a user's row, for every table: a matrix, tried cell by cell.

Each cell is tried as the application's role, with the actor bound as the application binds it. A
table that is missing here fails, as does one that lets an actor do more, or less, than it says.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from schema.actors import ANONYMOUS, SERVICE, Actor, ActorType, acting_user
from schema.ids import UserId
from tests.fixtures.api_user import ApiUser
from tests.fixtures.every_table import insert, rows_of, things_of
from tests.fixtures.stack import Stack

# r: read, c: create, u: update, d: delete. No other actor has any right, so strangers are omitted
# except for rows that are published or meant for all signed-in users.
OWNED: Final = {"owner": "rcud", "admin": "r", "service": "rcud"}
HIDDEN: Final = {"service": "rcud"}
ADMINISTERED: Final = {"admin": "rcud", "service": "rcud"}
READABLE: Final = {"owner": "r", "stranger": "r", **ADMINISTERED}
APPENDED: Final = {"admin": "rc", "service": "rc"}
PUBLISHABLE: Final = {**OWNED, "admin": "ru"}

RIGHTS: Final[dict[str, dict[str, str]]] = {
    "alembic_version": {"service": "r"},
    "alerts": ADMINISTERED,
    "api_keys": HIDDEN,
    # An administrator's own actions are recorded in their own name; this row is another user's.
    "audit_log": {"owner": "rc", "admin": "r", "service": "rc"},
    "attachments": OWNED,
    "budgets": {"owner": "r", **ADMINISTERED},
    "chat_summaries": OWNED,
    "chat_tool_approvals": OWNED,
    "chats": OWNED,
    "closed_identities": HIDDEN,
    "creations": OWNED,
    "credentials": HIDDEN,
    "document_versions": PUBLISHABLE,
    "documents": PUBLISHABLE,
    "due_works": OWNED,
    "erasures": {"owner": "c", "admin": "c", "service": "rcd"},
    "feedback": OWNED,
    "file_erasures": HIDDEN,
    "file_pieces": {"owner": "rcd", "service": "rcd"},
    "files": {"owner": "rcud", "service": "rcud"},
    "identities": HIDDEN,
    "ledger": {"owner": "rcu", "admin": "r", "service": "rcu"},
    "mails": HIDDEN,
    "mcp_servers": ADMINISTERED,
    "mcp_tools": READABLE,
    "memories": OWNED,
    "messages": OWNED,
    "passages": PUBLISHABLE,
    "plans": READABLE,
    "preferences": OWNED,
    "prompt_activations": APPENDED,
    "prompt_versions": APPENDED,
    "prompts": ADMINISTERED,
    "refresh_tokens": HIDDEN,
    "shares": {"owner": "rcd", "admin": "r", "service": "rcd"},
    "steps": OWNED,
    "subscriptions": {"owner": "r", **ADMINISTERED},
    "tool_calls": OWNED,
    "tool_catalogue": {"owner": "r", "stranger": "r", "admin": "ru", "service": "ru"},
    "tool_settings": READABLE,
    "tool_tests": ADMINISTERED,
    "turn_contexts": OWNED,
    "turns": OWNED,
    "usage_days": {"owner": "r", "admin": "r", "service": "rcud"},
    "users": {"owner": "r", "admin": "ru", "service": "rcud"},
    "workflow_tools": ADMINISTERED,
}
PUBLISHED: Final = {
    "documents": "published_version = 1",
    "document_versions": "published = true",
    "passages": "published = true",
}


@pytest.fixture
async def connection(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection; a test's changes in it are rolled back."""
    opened = await asyncpg.connect(stack.addresses.superuser)
    transaction = opened.transaction()
    await transaction.start()
    yield opened
    await transaction.rollback()
    await opened.close()


@dataclass(frozen=True)
class Furnished:
    """A user with a row in every table: what of each is known, and the application's role."""

    connection: asyncpg.Connection
    rows: dict[str, dict[str, Any]]
    user: str
    role: str

    async def rights(self, table: str) -> dict[str, str]:
        """Return what each actor may do to the user's row."""
        row = Row(self.connection, self.role, table)
        await row.find(self.rows.get(table, {}))
        found = {who: await row.rights_of(actor) for who, actor in actors(self.user).items()}
        return {who: rights for who, rights in found.items() if rights}


@pytest.fixture
async def furnished(connection: asyncpg.Connection, user: ApiUser, stack: Stack) -> Furnished:
    """Make the rows, in a transaction that is rolled back."""
    rows = rows_of(things_of(user.id))
    for table, row in rows.items():
        if table != "credentials":  # created by the signup
            await insert(connection, table, row)
    rows["users"] = {"id": UUID(user.id)}
    rows["tool_catalogue"] = {"id": 1}  # its only row
    role = make_url(stack.addresses.database).username or ""
    return Furnished(connection, rows, user.id, role)


def actors(owner: str) -> dict[str, Actor | None]:
    return {
        "no actor": None,
        "anonymous": ANONYMOUS,
        "anonymous with a name": Actor(type=ActorType.ANONYMOUS, user_id=UserId(UUID(owner))),
        "stranger": acting_user(UserId(uuid4())),
        "owner": acting_user(UserId(UUID(owner))),
        "admin": Actor(type=ActorType.ADMIN, user_id=UserId(uuid4())),
        "service": SERVICE,
    }


async def key_of(connection: asyncpg.Connection, table: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a "
        "ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) "
        "WHERE i.indrelid = $1::regclass AND i.indisprimary",
        table,
    )
    return [row["attname"] for row in rows]


class Row:
    """One row of a table, and what each actor may do to it."""

    def __init__(self, connection: asyncpg.Connection, role: str, table: str) -> None:
        self._connection = connection
        self._role = role
        self._table = table
        self._where = ""
        self._values: list[Any] = []
        self._key: list[str] = []

    async def find(self, known: dict[str, Any]) -> None:
        """Note by which columns the row is found."""
        self._key = await key_of(self._connection, self._table)
        known_key = [name for name in self._key if name in known]
        self._where = " AND ".join(f"{name} = ${n}" for n, name in enumerate(known_key, start=1))
        self._values = [known[name] for name in known_key]

    async def rights_of(self, actor: Actor | None) -> str:
        """Return the letters of the actor's rights."""
        column = self._key[0] if self._key else "version_num"
        where = f"WHERE {self._where}" if self._where else ""
        attempts = {
            "r": f"SELECT * FROM {self._table} {where}",
            "c": "",
            "u": f"UPDATE {self._table} SET {column} = {column} {where}",
            "d": f"DELETE FROM {self._table} {where}",
        }
        return "".join(
            [letter for letter, sql in attempts.items() if await self._may(actor, letter, sql)]
        )

    async def _may(self, actor: Actor | None, letter: str, statement: str) -> bool:
        savepoint = self._connection.transaction()
        await savepoint.start()
        try:
            values = self._values
            if letter == "c":
                statement, values = await self._taken_out(), []
            await self._act_as(actor)
            status: str = await self._connection.execute(statement, *values)
        except asyncpg.InsufficientPrivilegeError:
            return False
        except asyncpg.IntegrityConstraintViolationError:
            return True  # the policies let it through; a foreign key had its say afterwards
        else:
            return int(status.rsplit(maxsplit=1)[-1]) > 0
        finally:
            await savepoint.rollback()

    async def _taken_out(self) -> str:
        """Take the row out of its table, and return the statement that puts it back."""
        where = f"WHERE {self._where}" if self._where else ""
        await self._connection.execute("SET LOCAL session_replication_role = replica")
        row = await self._connection.fetchval(
            f"SELECT to_jsonb(t)::text FROM {self._table} t {where}", *self._values
        )
        await self._connection.execute(f"DELETE FROM {self._table} {where}", *self._values)
        await self._connection.execute("SET LOCAL session_replication_role = origin")
        columns = await self._connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 "
            "AND attgenerated = '' AND NOT attisdropped",
            self._table,
        )
        names = ", ".join(column["attname"] for column in columns)
        text = json.dumps(json.loads(row)).replace("'", "''")
        return (
            f"INSERT INTO {self._table} ({names}) SELECT {names} "
            f"FROM jsonb_populate_record(NULL::{self._table}, '{text}')"
        )

    async def _act_as(self, actor: Actor | None) -> None:
        if actor is not None:
            await self._connection.execute(
                "SELECT set_config('everturn.actor_type', $1, true), "
                "set_config('everturn.user_id', $2, true)",
                actor.type.value,
                str(actor.user_id),
            )
        await self._connection.execute(f'SET LOCAL ROLE "{self._role}"')


@pytest.mark.parametrize("table", RIGHTS)
async def test_each_actor_may_do_to_a_row_what_the_matrix_says(
    furnished: Furnished, table: str
) -> None:
    assert await furnished.rights(table) == RIGHTS[table]


@pytest.mark.parametrize("table", PUBLISHED)
async def test_published_rows_are_readable_by_all_and_writable_by_none(
    furnished: Furnished, table: str
) -> None:
    await furnished.connection.execute(
        f"UPDATE {table} SET {PUBLISHED[table]} WHERE user_id = $1", UUID(furnished.user)
    )

    assert await furnished.rights(table) == {**RIGHTS[table], "stranger": "r"}


async def test_every_table_is_in_the_matrix(connection: asyncpg.Connection) -> None:
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p', 'v', 'm', 'f')"
    )

    assert {row["relname"] for row in tables} == set(RIGHTS)
