"""The limiter: counting in Redis, with other processes, and while Redis is unavailable."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from structlog.testing import capture_logs

from services.rate_limits.limiter import KEY_PREFIX, RateLimiter
from services.rate_limits.rules import Group, Limit
from tests.fixtures.redis_proxy import RedisProxy
from tests.fixtures.stack import Stack

HOURLY = Limit(Group.REQUESTS, 20, timedelta(hours=1))
QUICK = Limit(Group.MESSAGES, 4, timedelta(seconds=1))
PATIENT = timedelta(seconds=30)
"""Longer than a busy machine ever keeps a test waiting for its Redis."""


def new_subject() -> str:
    return f"user:{uuid4()}"


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Redis]:
    timeout_s = PATIENT.total_seconds()
    redis = Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    async with redis:
        yield redis


@pytest.fixture
async def limiter(stack: Stack) -> AsyncIterator[RateLimiter]:
    async with client_of(stack.addresses.redis) as redis:
        yield RateLimiter(redis, redis_timeout=PATIENT)


@pytest.fixture
async def proxy(stack: Stack) -> AsyncIterator[RedisProxy]:
    async with RedisProxy.open(stack.addresses.redis) as opened:
        yield opened


async def test_concurrent_requests_respect_the_limit(limiter: RateLimiter) -> None:
    subject = new_subject()

    decisions = await asyncio.gather(*(limiter.hit(subject, (HOURLY,)) for _ in range(50)))

    assert sum(decision.allowed for decision in decisions) == 20
    assert (await limiter.hit(subject, (HOURLY,))).remaining == 0
    assert not limiter.is_degraded


async def test_each_is_counted_separately(limiter: RateLimiter) -> None:
    first, second = new_subject(), new_subject()
    for _ in range(20):
        await limiter.hit(first, (HOURLY,))

    assert not (await limiter.hit(first, (HOURLY,))).allowed
    assert (await limiter.hit(second, (HOURLY,))).allowed


async def test_waiting_for_retry_after_is_enough(limiter: RateLimiter) -> None:
    subject = new_subject()
    refusals = 0
    while refusals < 4:
        decision = await limiter.hit(subject, (QUICK,))
        if not decision.allowed:
            refusals += 1
            assert timedelta(0) <= decision.reset_after <= QUICK.window
            # Redis knows whole milliseconds alone.
            await asyncio.sleep(decision.reset_after.total_seconds() + 0.005)
            assert (await limiter.hit(subject, (QUICK,))).allowed

    assert not limiter.is_degraded


async def test_a_rejection_by_one_limit_charges_none(limiter: RateLimiter) -> None:
    subject = new_subject()
    narrow = Limit(Group.UPLOADS, 1, timedelta(hours=1))

    decisions = [await limiter.hit(subject, (HOURLY, narrow)) for _ in range(10)]

    assert [decision.allowed for decision in decisions] == [True] + [False] * 9
    assert {decision.limit for decision in decisions} == {narrow}
    assert (await limiter.hit(subject, (HOURLY,))).remaining == 18


async def test_counters_expire_with_their_window(stack: Stack, limiter: RateLimiter) -> None:
    subject = new_subject()
    await limiter.hit(subject, (HOURLY,))

    keys = [key async for key in stack.foundation.redis.scan_iter(f"{KEY_PREFIX}:*{subject}*")]
    lives_ms = [await stack.foundation.redis.pttl(key) for key in keys]

    assert len(keys) == 1
    assert 0 < lives_ms[0] <= 2 * HOURLY.window_s * 1000


OTHER_PROCESS = """
import asyncio, sys
from datetime import timedelta
from redis.asyncio import Redis
from services.rate_limits.limiter import RateLimiter
from services.rate_limits.rules import Group, Limit

async def main(url, subject):
    async with Redis.from_url(url, socket_timeout=30) as redis:
        limiter = RateLimiter(redis, redis_timeout=timedelta(seconds=30))
        limit = Limit(Group.REQUESTS, 20, timedelta(hours=1))
        hits = [limiter.hit(subject, (limit,)) for _ in range(15)]
        decisions = await asyncio.gather(*hits)
        assert not limiter.is_degraded
        sys.stdout.write(str(sum(decision.allowed for decision in decisions)))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_share_a_limit(stack: Stack) -> None:
    subject = new_subject()

    async def other_process() -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", OTHER_PROCESS, stack.addresses.redis, subject),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        return int(output)

    allowed = await asyncio.gather(other_process(), other_process())

    assert sum(allowed) == 20


async def test_a_restarted_redis_gets_the_script_again(stack: Stack, limiter: RateLimiter) -> None:
    await stack.foundation.redis.script_flush()

    assert (await limiter.hit(new_subject(), (HOURLY,))).allowed
    assert not limiter.is_degraded


@asynccontextmanager
async def no_redis() -> AsyncIterator[Redis]:
    """Yield a client of a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        async with client_of(f"redis://127.0.0.1:{probe.getsockname()[1]}/0") as redis:
            yield redis


async def test_without_redis_each_process_counts_on_its_own() -> None:
    subject = new_subject()
    async with no_redis() as redis:
        limiter = RateLimiter(redis, redis_timeout=PATIENT, pause=timedelta(hours=1))
        with capture_logs() as logs:
            hits = [limiter.hit(subject, (HOURLY,)) for _ in range(50)]
            decisions = await asyncio.gather(*hits)

    assert sum(decision.allowed for decision in decisions) == 20
    assert limiter.is_degraded
    assert [entry["event"] for entry in logs] == ["rate_limiter_degraded"]


async def test_without_redis_only_the_subjects_that_came_last_are_counted() -> None:
    first, second, third = (new_subject() for _ in range(3))
    once = (Limit(Group.REQUESTS, 1, timedelta(hours=1)),)
    async with no_redis() as redis:
        limiter = RateLimiter(
            redis, redis_timeout=PATIENT, pause=timedelta(hours=1), max_subjects=2
        )
        for subject in (first, second, first, third):
            await limiter.hit(subject, once)

        allowed = [(await limiter.hit(subject, once)).allowed for subject in (first, second)]

    assert allowed == [False, True]


async def test_a_redis_that_hangs_is_waited_for_once(proxy: RedisProxy) -> None:
    async with client_of(proxy.url) as redis:
        limiter = RateLimiter(redis, pause=timedelta(hours=1))
        proxy.hang()
        await limiter.hit(new_subject(), (HOURLY,))
        asked = proxy.requests

        decisions = [await limiter.hit(new_subject(), (HOURLY,)) for _ in range(20)]

    assert all(decision.allowed for decision in decisions)
    assert limiter.is_degraded
    assert proxy.requests == asked


async def test_after_the_pause_one_request_tries_redis_for_all(proxy: RedisProxy) -> None:
    async with client_of(proxy.url) as redis:
        limiter = RateLimiter(redis, pause=timedelta(milliseconds=150))
        proxy.hang()
        await limiter.hit(new_subject(), (HOURLY,))
        asked = proxy.connections

        async with asyncio.timeout(30):
            while proxy.connections == asked:
                await asyncio.gather(*(limiter.hit(new_subject(), (HOURLY,)) for _ in range(20)))

    assert proxy.connections == asked + 1


async def test_redis_decides_again_once_it_is_back(proxy: RedisProxy, limiter: RateLimiter) -> None:
    subject = new_subject()
    async with client_of(proxy.url) as redis:
        lonely = RateLimiter(redis, pause=timedelta(0))
        with capture_logs() as logs:
            proxy.hang()
            await lonely.hit(subject, (HOURLY,))
            for _ in range(19):
                await limiter.hit(subject, (HOURLY,))
            proxy.resume()
            async with asyncio.timeout(30):
                decision = await lonely.hit(subject, (HOURLY,))
                while lonely.is_degraded or decision.allowed:
                    decision = await lonely.hit(subject, (HOURLY,))

    events = [entry["event"] for entry in logs]
    assert events[:2] == ["rate_limiter_degraded", "rate_limiter_recovered"]
