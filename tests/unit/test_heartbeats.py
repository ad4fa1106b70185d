"""How often the activities of turns heartbeat, and what a stop that is heard changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from temporalio.testing import ActivityEnvironment

from activities import heartbeats
from activities.heartbeats import DEAF_INTERVAL_S, INTERVAL_S, TurnHeartbeats
from schema.ids import TurnId, new_id
from services.events.stops import StopListener

BOUND_S = 10.0
NEVER_S = 3600.0


def listener(*, is_connected: bool) -> StopListener:
    stops = StopListener(cast("Redis", None))
    stops.is_connected = is_connected
    return stops


def hear(stops: StopListener, turn_id: TurnId) -> None:
    stops._take({"type": "message", "data": str(turn_id).encode()})


@asynccontextmanager
async def beating(stops: StopListener, turn_id: TurnId) -> AsyncIterator["asyncio.Queue[object]"]:
    """An activity of a turn that runs while the block does, and its heartbeats."""
    beats: asyncio.Queue[object] = asyncio.Queue()
    begun = asyncio.Event()

    async def run() -> None:
        async with TurnHeartbeats(stops).of(turn_id):
            begun.set()
            await asyncio.Event().wait()

    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *_: beats.put_nowait(stops)
    running = asyncio.ensure_future(cast("Any", environment.run(run)))
    await begun.wait()
    yield beats
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_stop_that_is_heard_lets_the_activity_heartbeat_at_once_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeats, "INTERVAL_S", NEVER_S)
    monkeypatch.setattr(heartbeats, "HURRIED_INTERVAL_S", 0.001)
    stops, turn_id = listener(is_connected=True), TurnId(new_id())

    async with beating(stops, turn_id) as beats, asyncio.timeout(BOUND_S):
        hear(stops, turn_id)
        heard = [await beats.get() for _ in range(5)]

    assert len(heard) == 5


async def test_the_stop_of_another_turn_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "INTERVAL_S", NEVER_S)
    stops, other = listener(is_connected=True), TurnId(new_id())

    async with beating(stops, TurnId(new_id())) as mine, beating(stops, other) as others:
        hear(stops, other)
        async with asyncio.timeout(BOUND_S):
            await others.get()

        assert mine.empty()


@pytest.mark.parametrize(
    ("under_way", "interval_s"),
    [(1, DEAF_INTERVAL_S), (25, DEAF_INTERVAL_S), (50, 1.0), (100, 2.0), (1_000, 2.0)],
)
async def test_without_redis_each_heartbeats_often_and_the_rarer_the_more_there_are(
    under_way: int, interval_s: float
) -> None:
    shared = TurnHeartbeats(listener(is_connected=False))

    async with AsyncExitStack() as stack:
        for _ in range(under_way):
            await stack.enter_async_context(shared.of(TurnId(new_id())))
        seen = shared.interval_s

    assert seen == interval_s
    assert shared.interval_s == DEAF_INTERVAL_S


async def test_while_stops_are_heard_heartbeats_are_rare() -> None:
    assert TurnHeartbeats(listener(is_connected=True)).interval_s == INTERVAL_S


async def test_nothing_is_kept_of_activities_that_are_over() -> None:
    stops, turn_id = listener(is_connected=True), TurnId(new_id())

    with stops.awaited(turn_id), stops.awaited(turn_id):
        pass

    assert dict(stops._awaited) == {}
