"""Transactions that wait for each other: one is rolled back, and tried again as after an outage."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import pytest

from schema.actors import SERVICE, Actor, acting_user
from schema.ids import ChatId, UserId, new_id
from services.database import Database, DatabaseUnavailableError
from services.database.connections import lock
from services.shielding import until_stored
from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually

Meet: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when both transactions hold their first lock."""

OPEN: Final = """
INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status, estimated, cost_usd,
                    input_tokens, reserved_usd, created_at)
SELECT id, $2, id, 1, 1, 'model', 'm', 'open', true, 0, 0, 1, now() - place * interval '1 day'
FROM unnest($1::uuid[]) WITH ORDINALITY AS calls (id, place)
"""
SETTLE: Final = "UPDATE ledger SET status = 'settled', cost_usd = 0.25 WHERE id = $1"
# The days are locked here, and not only by the commit.
CHARGE: Final = "SET CONSTRAINTS ALL IMMEDIATE"
DAYS: Final = """
SELECT settled_usd FROM usage_days
WHERE scope = 'user' AND subject_id = $1 AND settled_usd > 0 ORDER BY day
"""


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Database]:
    opened = Database(stack.addresses.database, pool_size=20)
    yield opened
    await opened.close()


async def _crossed(
    one: Callable[[Meet], Awaitable[None]], other: Callable[[Meet], Awaitable[None]]
) -> list[BaseException | None]:
    """Run two transactions, each of which calls its argument when it holds its first lock."""
    both = asyncio.Barrier(2)

    async def meet() -> None:
        async with asyncio.timeout(10):
            await both.wait()

    return [*await asyncio.gather(one(meet), other(meet), return_exceptions=True)]


@pytest.mark.parametrize("way", ["statements", "transaction"])
async def test_the_one_that_is_rolled_back_may_be_tried_again(
    database: Database, way: Literal["statements", "transaction"]
) -> None:
    names = [f"deadlock {new_id()}" for _ in range(2)]

    def locking(first: str, second: str) -> Callable[[Meet], Awaitable[None]]:
        async def run(meet: Meet) -> None:
            begin: Callable[[Actor], AbstractAsyncContextManager[Any]] = getattr(database, way)
            async with begin(SERVICE) as work:
                await lock(work, first)
                await meet()
                await lock(work, second)

        return run

    ends = await _crossed(locking(*names), locking(*reversed(names)))

    assert [type(end) for end in ends if end is not None] == [DatabaseUnavailableError]


async def test_two_that_charge_days_in_opposite_order_are_both_charged(
    database: Database, user: ApiUser, stack: Stack
) -> None:
    """As at midnight: what a step of yesterday lost, and what runs today, are settled together."""
    actor = acting_user(UserId(UUID(user.id)))
    calls = [new_id() for _ in range(4)]
    async with database.statements(actor) as connection:
        # Two of each of two days.
        await connection.execute(OPEN, calls[:2], actor.user_id)
        await connection.execute(OPEN, calls[2:], actor.user_id)
    met: list[None] = []

    def settling(first: UUID, second: UUID) -> Callable[[Meet], Awaitable[None]]:
        async def run(meet: Meet) -> None:
            async def once() -> None:
                async with database.statements(actor) as connection:
                    await connection.execute(SETTLE, first)
                    await connection.execute(CHARGE)
                    if len(met) < 2:
                        met.append(None)
                        await meet()
                    await connection.execute(SETTLE, second)
                    await connection.execute(CHARGE)

            await until_stored(once)

        return run

    ends = await _crossed(settling(calls[0], calls[1]), settling(calls[3], calls[2]))

    assert ends == [None, None]
    days = await stack.inspection.rows(DAYS, actor.user_id)
    assert [float(day["settled_usd"]) for day in days] == [0.5, 0.5]


async def test_a_wait_for_a_lock_that_is_cancelled_again_and_again_keeps_no_connection(
    stack: Stack, user: ApiUser
) -> None:
    chat_id, actor = ChatId(UUID(await user.create_chat())), acting_user(UserId(UUID(user.id)))
    database = Database(stack.addresses.database, pool_size=1)

    async def locking() -> None:
        async with database.statements(actor, locking=chat_id):
            pass

    async def waiting() -> int:
        found: int = await stack.inspection.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND strpos(query, $1) > 0",
            str(chat_id),
        )
        return found

    async with stack.foundation.database.statements(actor, locking=chat_id):
        cancelled = asyncio.create_task(locking())
        await eventually(waiting, bool)
        while not cancelled.done():
            # As a scope of anyio does.
            cancelled.cancel()
            await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await locking()
        await database.close()
    assert await waiting() == 0
