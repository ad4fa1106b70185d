"""Erasing streams: at once, or by the sweep if Redis was unavailable."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schema.ids import TurnId
from schema.names import BACKGROUND_QUEUE
from schema.sweeps import SweepInput, SweepPart
from services.erasure import Erasure
from services.events.writer import EventWriter, stream_key
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack
from workflows.sweep import Sweep

NOTED = "SELECT count(*) FROM erasures WHERE turn_id = $1"
DEAD = "redis://127.0.0.1:1/0"  # nothing may listen on a port that low


@pytest.fixture
async def without_redis(stack: Stack) -> AsyncIterator[Erasure]:
    """Erasing while Redis is unavailable."""
    redis = Redis.from_url(DEAD, retry=Retry(NoBackoff(), 0))
    yield Erasure(stack.foundation.database, EventWriter(redis, retention_s=60).erase)
    await redis.aclose()


async def answered_turn(user: ApiUser, stack: Stack) -> tuple[str, TurnId]:
    """Return a chat, and its one turn, which has ended."""
    question = unique()
    stack.model.add(Script(match=question, text="Here."))
    chat = await user.create_chat()
    data = await user.ask(chat, question)
    return chat, TurnId(UUID(data["turn"]["id"]))


async def sweep(stack: Stack) -> int:
    """Sweep erasures, and return how many streams were erased."""
    async with asyncio.timeout(30):
        outcome = await stack.temporal.execute_workflow(
            Sweep.run,
            SweepInput(parts=(SweepPart.ERASURES,)),
            id=f"sweep-{uuid4()}",
            task_queue=BACKGROUND_QUEUE,
        )
    return outcome.handled[SweepPart.ERASURES]


async def test_a_stream_is_erased_with_its_chat(user: ApiUser, stack: Stack) -> None:
    chat, turn_id = await answered_turn(user, stack)
    redis = stack.foundation.redis
    assert await redis.exists(stream_key(turn_id)) == 1

    await user.request("DELETE", f"/chats/{chat}")

    assert await redis.exists(stream_key(turn_id)) == 0
    assert await stack.inspection.value(NOTED, turn_id) == 0


async def test_streams_that_redis_kept_during_an_outage_are_erased_by_the_sweep(
    user: ApiUser, stack: Stack, without_redis: Erasure
) -> None:
    _, turn_id = await answered_turn(user, stack)
    await stack.inspection.execute("INSERT INTO erasures (turn_id) VALUES ($1)", turn_id)

    erased = await without_redis.erase([turn_id])

    assert erased is False
    assert await stack.inspection.value(NOTED, turn_id) == 1
    assert await sweep(stack) >= 1
    assert await stack.foundation.redis.exists(stream_key(turn_id)) == 0
    assert await stack.inspection.value(NOTED, turn_id) == 0


async def test_a_sweep_erases_all_that_is_pending(stack: Stack) -> None:
    await sweep(stack)

    assert await sweep(stack) == 0


async def test_an_erased_stream_accepts_no_more_events(user: ApiUser, stack: Stack) -> None:
    chat, turn_id = await answered_turn(user, stack)

    await user.request("DELETE", f"/chats/{chat}")
    appended = await stack.foundation.events.close(turn_id, [])

    assert str(appended) == "present"


async def test_the_newest_streams_of_a_long_history_are_erased_at_once(
    stack: Stack, without_redis: Erasure
) -> None:
    erasure = Erasure(stack.foundation.database, stack.foundation.events.erase)
    turn_ids = [TurnId(uuid4()) for _ in range(501)]
    await stack.inspection.execute(
        "INSERT INTO erasures (turn_id) SELECT unnest($1::uuid[])", turn_ids
    )

    assert await erasure.erase(turn_ids) is False

    left = await stack.inspection.rows("SELECT * FROM erasures WHERE turn_id = ANY($1)", turn_ids)
    assert [row["turn_id"] for row in left] == [min(turn_ids)]
    assert await sweep(stack) >= 1
    assert await stack.inspection.value(NOTED, min(turn_ids)) == 0
