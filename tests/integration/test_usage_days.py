"""The sums of days: triggers keep them equal to the ledger, with any writers at any time."""

import asyncio
import random
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from schema.actors import SERVICE, acting_user
from schema.ids import UserId, new_id
from services.database import Database
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack

NOBODY: Final = UUID(int=0)

OPEN: Final = """
INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status, estimated, cost_usd,
                    input_tokens, reserved_usd, reserved_tokens, api_key_id, created_at)
VALUES ($1, $2, $1, 1, 1, 'model', 'm', 'open', true, $3, $4, $5, $6, $7,
        now() - $8 * interval '1 day')
"""
SPEND: Final = "UPDATE ledger SET cost_usd = $2, output_tokens = $3 WHERE id = $1"
CLOSE: Final = """
UPDATE ledger SET status = $2, cost_usd = $3, input_tokens = $4, settled_at = now() WHERE id = $1
"""
STATUSES: Final = ("settled", "failed", "cancelled", "lost")

LEDGER: Final = """
SELECT (created_at AT TIME ZONE 'UTC')::date AS day, sum(charged_usd) AS settled_usd,
       sum(charged_tokens) AS settled_tokens
FROM ledger WHERE {column} = $1 AND status <> 'open' GROUP BY 1 ORDER BY 1
"""
DAYS: Final = """
SELECT day, settled_usd, settled_tokens
FROM usage_days WHERE scope = $1 AND subject_id = $2 ORDER BY day
"""
INSTALLATION: Final = """
SELECT settled_usd FROM usage_days
WHERE scope = 'installation' AND day = (now() AT TIME ZONE 'UTC')::date
"""
RUNNING: Final = """
SELECT sum(charged_usd) AS usd FROM ledger
WHERE user_id = $1 AND status = 'open'
  AND (created_at AT TIME ZONE 'UTC')::date = (now() AT TIME ZONE 'UTC')::date
"""


class Calls:
    """Paid calls of one user, opened and closed at random by many at once."""

    def __init__(self, database: Database, user_id: UUID, seed: int) -> None:
        self._database = database
        self._actor = acting_user(UserId(user_id))
        self._chance = random.Random(seed)
        self.key_id = new_id()

    async def run(self, number: int) -> None:
        await asyncio.gather(*(self.one() for _ in range(number)))

    async def one(self) -> None:
        """Make one call: opened, perhaps spent from, and mostly closed, each on its own."""
        call_id, chance = new_id(), self._chance
        key = self.key_id if chance.random() < 0.4 else None
        await self._write(
            OPEN,
            *(call_id, self._actor.user_id, self._cost(), chance.randrange(900)),
            *(self._cost(), chance.randrange(2000), key, chance.randrange(3)),
        )
        if chance.random() < 0.5:
            await self._write(SPEND, call_id, self._cost(), chance.randrange(3000))
        if chance.random() < 0.8:
            status = chance.choice(STATUSES)
            await self._write(CLOSE, call_id, status, self._cost(), chance.randrange(500))
        if chance.random() < 0.2:
            # Settled a second time, as what wakes up late does.
            await self._write(CLOSE, call_id, "settled", self._cost(), chance.randrange(500))

    async def open(self, reserved: str) -> UUID:
        """Open a call of today and leave it open."""
        call_id = new_id()
        await self._write(
            OPEN, call_id, self._actor.user_id, Decimal(0), 0, Decimal(reserved), 10, None, 0
        )
        return call_id

    def _cost(self) -> Decimal:
        return Decimal(self._chance.randrange(1, 10**6)) / 10**5

    async def _write(self, statement: str, *values: object) -> None:
        async with self._database.statements(self._actor) as connection:
            await connection.execute(statement, *values)


async def sums(stack: Stack, scope: str, subject: UUID) -> tuple[list[Any], list[Any]]:
    """Return the days of the ledger, and those that are kept."""
    column = {"user": "user_id", "api_key": "api_key_id"}[scope]
    ledger = await stack.inspection.rows(LEDGER.format(column=column), subject)
    kept = await stack.inspection.rows(DAYS, scope, subject)
    return [tuple(row.values()) for row in ledger], [tuple(row.values()) for row in kept]


async def test_days_add_up_to_the_ledger_whatever_runs_at_once(user: ApiUser, stack: Stack) -> None:
    calls = Calls(stack.foundation.database, UUID(user.id), seed=1)

    await calls.run(150)

    for scope, subject in (("user", UUID(user.id)), ("api_key", calls.key_id)):
        ledger, kept = await sums(stack, scope, subject)
        assert len(ledger) == 3
        assert kept == ledger


async def test_the_installation_is_added_up_only_while_it_has_a_budget(
    user: ApiUser, stack: Stack
) -> None:
    database = stack.foundation.database
    calls = Calls(database, UUID(user.id), seed=2)

    async def today() -> list[Any]:
        return [tuple(row.values()) for row in await stack.inspection.rows(INSTALLATION)]

    async def budget(statement: str, *values: object) -> None:
        async with database.statements(SERVICE) as connection:
            await connection.execute(statement, *values)

    insert = "INSERT INTO budgets (scope, subject_id) VALUES ('installation', $1)"
    try:
        # Set while others write: none of their calls is missed, or counted twice.
        await asyncio.gather(calls.run(40), budget(insert, NOBODY), calls.run(40))
        await calls.run(20)
        # Not the ledger: other tests of this process move some of its rows to earlier days.
        expected = await stack.inspection.rows(
            "SELECT sum(settled_usd) AS settled FROM usage_days"
            " WHERE scope = 'user' AND day = (now() AT TIME ZONE 'UTC')::date"
        )
        assert await today() == [tuple(row.values()) for row in expected]
    finally:
        await budget("DELETE FROM budgets WHERE scope = 'installation'")
        await budget("DELETE FROM usage_days WHERE scope = 'installation'")
    await calls.run(5)
    assert await today() == []


async def test_a_deleted_users_spending_stays_with_the_installation(stack: Stack) -> None:
    database, leaving = stack.foundation.database, await stack.sign_up()
    calls = Calls(database, UUID(leaving.id), seed=3)
    async with database.statements(SERVICE) as connection:
        await connection.execute(
            "INSERT INTO budgets (scope, subject_id) VALUES ('installation', $1)", NOBODY
        )
    try:
        await calls.run(5)
        await calls.open("1.5")
        [before] = await stack.inspection.rows(INSTALLATION)
        [running] = await stack.inspection.rows(RUNNING, UUID(leaving.id))
        async with database.statements(SERVICE) as connection:
            await connection.execute("DELETE FROM users WHERE id = $1", UUID(leaving.id))
        [after] = await stack.inspection.rows(INSTALLATION)
    finally:
        async with database.statements(SERVICE) as connection:
            await connection.execute("DELETE FROM budgets WHERE scope = 'installation'")
            await connection.execute("DELETE FROM usage_days WHERE scope = 'installation'")
    assert running["usd"] >= Decimal("1.5")
    assert after["settled_usd"] == before["settled_usd"] + running["usd"]
    assert await stack.inspection.rows(DAYS, "user", UUID(leaving.id)) == []


async def test_users_read_their_days_and_budgets_and_change_only_those_of_their_keys(
    user: ApiUser, stack: Stack
) -> None:
    created = await user.request("POST", "/users/me/api-keys", json={"name": "Import"})
    key_id = UUID(created.json()["data"]["id"])
    owner = UUID(user.id)
    insert = "INSERT INTO budgets (scope, subject_id, user_id, budget_usd) VALUES ($1, $2, $3, 5)"
    await stack.inspection.execute(insert, "user", owner, owner)

    async with stack.foundation.database.statements(acting_user(UserId(owner))) as connection:
        await connection.execute(insert, "api_key", key_id, owner)
        changed = await connection.execute("UPDATE budgets SET budget_usd = 9")

    assert changed == "UPDATE 1"
    rows = await stack.inspection.rows(
        "SELECT scope, budget_usd FROM budgets WHERE user_id = $1 ORDER BY scope", owner
    )
    assert [tuple(row.values()) for row in rows] == [("api_key", 9), ("user", 5)]
