"""Stops of turns, as workers hear them over Redis."""

import asyncio

from redis.asyncio import Redis

from schema.ids import TurnId, new_id
from services.events.stops import STOPS_CHANNEL, StopListener, announce_stop
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually

BOUND_S = 10.0


async def connected(stops: StopListener) -> None:
    async def is_connected() -> bool:
        return stops.is_connected

    await eventually(is_connected, bool)


async def test_a_stop_is_heard_by_every_process_that_works_on_the_turn(stack: Stack) -> None:
    redis, turn_id = stack.foundation.redis, TurnId(new_id())

    async with StopListener(redis) as first, StopListener(redis) as second:
        with first.awaited(turn_id) as heard, second.awaited(turn_id) as heard_too:
            for stops in (first, second):
                await connected(stops)
            await announce_stop(redis, TurnId(new_id()))
            await redis.publish(STOPS_CHANNEL, b"\xff")
            assert not heard.is_set()
            await announce_stop(redis, turn_id)
            async with asyncio.timeout(BOUND_S):
                await heard.wait()
                await heard_too.wait()


async def test_without_redis_nothing_is_heard_and_nothing_fails() -> None:
    async with Redis(port=1) as nowhere, StopListener(nowhere) as stops:
        await announce_stop(nowhere, TurnId(new_id()))

        assert not stops.is_connected


async def test_a_client_that_stops_a_turn_lets_workers_hear_it(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()

    async with StopListener(stack.foundation.redis) as stops:
        await connected(stops)
        async with user.stream(chat, question) as stream:
            await stream.until_text("One, ")
            with stops.awaited(TurnId(stream.turn_id)) as heard:  # type: ignore[arg-type]
                await user.cancel(stream.turn_id)
                async with asyncio.timeout(BOUND_S):
                    await heard.wait()
            await stream.all()
