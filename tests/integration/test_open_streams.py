"""How many streams a user may have open: over all processes, after kills, and without Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from api.app import create_app
from schema.ids import UserId, new_id
from services.events.open_streams import OpenStreams, leases_key
from services.events.writer import PROCESS_CHANNEL_PREFIX
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.plans import allow
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client
from tests.integration.test_rate_limits import no_redis


@asynccontextmanager
async def process(redis: Redis, *, listens: bool = True) -> AsyncIterator[OpenStreams]:
    """Count as another process of the API would, one that lives or was killed."""
    channel = f"{PROCESS_CHANNEL_PREFIX}{uuid4().hex}"
    async with redis.pubsub() as pubsub, OpenStreams(redis, process_channel=channel) as opened:
        if listens:
            await pubsub.subscribe(channel)
            await pubsub.get_message(timeout=5)
        yield opened


def new_user() -> UserId:
    return UserId(new_id())


async def test_a_users_streams_are_counted_over_all_processes(stack: Stack) -> None:
    redis, user, other = stack.foundation.redis, new_user(), new_user()

    async with process(redis) as one, process(redis) as two:
        first = await one.open(user, limit=2)
        assert first is not None
        assert await two.open(user, limit=2) is not None
        assert await one.open(user, limit=2) is None
        assert await two.open(user, limit=2) is None
        assert await two.open(other, limit=2) is not None
        one.close(first)
        assert await one.open(user, limit=2) is not None
        assert await one.open(user, limit=2) is None

    assert 0 < await redis.ttl(leases_key(user)) <= 60


async def test_the_streams_of_a_killed_process_count_no_longer(stack: Stack) -> None:
    redis, user = stack.foundation.redis, new_user()

    async with process(redis, listens=False) as killed, process(redis) as alive:
        for _ in range(3):
            assert await killed.open(user, limit=3) is not None
        assert await alive.open(user, limit=3) is not None
        assert await redis.zcard(leases_key(user)) == 1


async def test_without_redis_each_process_counts_its_own_streams() -> None:
    user = new_user()

    async with no_redis() as redis, OpenStreams(redis, process_channel="x") as opened:
        first = await opened.open(user, limit=1)
        assert first is not None
        assert await opened.open(user, limit=1) is None
        opened.close(first)
        assert await opened.open(user, limit=1) is not None


async def test_leases_are_renewed_while_their_streams_are_open(stack: Stack) -> None:
    redis, user = stack.foundation.redis, new_user()

    async with process(redis) as opened:
        lease = await opened.open(user, limit=1)
        assert lease is not None
        await redis.delete(leases_key(user))
        await opened._renew()

        assert await redis.zrange(leases_key(user), 0, -1) == [lease.name.encode()]


@pytest.fixture
async def counted(stack: Stack) -> AsyncIterator[OpenStreams]:
    async with process(stack.foundation.redis) as opened:
        yield opened


@pytest.fixture
async def narrow(stack: Stack, counted: OpenStreams) -> AsyncIterator[ApiUser]:
    """A user whose plan allows one open stream, at an API that counts them."""
    turns = replace(stack.services.turns, open_streams=counted)
    app = create_app(
        replace(stack.services, turns=turns), max_body_bytes=stack.settings.max_body_bytes
    )
    async with serving(app) as origin, api_client(origin) as http:
        user = await ApiUser.sign_up(http)
        await allow(stack.inspection, user.id, maxOpenStreams=1)
        yield user


async def test_a_stream_too_many_is_refused_before_anything_is_stored(
    stack: Stack, narrow: ApiUser
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One", "."), hold=question, hold_after=1))
    chat, other = await narrow.create_chat(), await narrow.create_chat()

    async with narrow.stream(chat, question) as stream:
        await stream.until_named("delta")
        body = {"content": "Another", "stream": True}
        refused = await narrow.request("POST", f"/chats/{other}/messages", json=body)
        followed = await narrow.request("GET", f"/turns/{stream.turn_id}/events")
        stack.model.release(question)
        await stream.all()

    for response in (refused, followed):
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (429, "RATE_LIMITED")
        assert "your plan allows 1 at a time" in error["message"]
        assert int(response.headers["retry-after"]) > 0
    stored = await narrow.request("GET", f"/chats/{other}/messages")
    assert stored.json()["data"] == []
    # The slot of the stream that has ended is free again, and that of each refusal was none.
    assert (await narrow.events(stream.turn_id))[-1].name == "done"


async def test_a_client_that_leaves_gives_its_place_back(
    stack: Stack, narrow: ApiUser, counted: OpenStreams
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One", "."), hold=question, hold_after=1))
    chat = await narrow.create_chat()

    async with AsyncExitStack() as leaving:
        stream = await leaving.enter_async_context(narrow.stream(chat, question))
        await stream.until_named("delta")
    async with asyncio.timeout(10):
        while counted._open:
            await counted._has_ended.wait()

    async with narrow.follow(stream.turn_id) as again:
        await again.until_named("delta")
        stack.model.release(question)
        await again.all()
