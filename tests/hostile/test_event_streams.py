"""Crowds and laggards at the event streams."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any, Final
from uuid import UUID

from redis.asyncio import Redis

from schema.ids import TurnId
from services.events.writer import stream_key
from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.bystanders import Bystanders, Others
from tests.running_everturn.client import Client
from tests.running_everturn.crowd import Followed, Follower, follow_all
from tests.running_everturn.stack import ScriptedStack

_USERS: Final = 4
_STREAMS: Final = 75
"""Of each user: a plan allows 100."""
SERVED_WITHIN_S: Final = 15.0
_SILENT: Final = 13
_LONG_BYTES: Final = 30 * 2**20
_GROWTH_MIB: Final = 60


async def test_a_crowd_that_reconnects_after_a_kill_is_served(everturn: ScriptedStack) -> None:
    served_s = await reconnect_after_a_kill(everturn, users=_USERS, streams=_STREAMS)

    assert served_s < SERVED_WITHIN_S


async def reconnect_after_a_kill(everturn: ScriptedStack, *, users: int, streams: int) -> float:
    """Follow turns over many streams, kill the API, and have all of them resume at once.

    Units: returns the seconds from the first that was served again to the last.
    """
    question = "a crowd that reconnects"
    script = Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1)
    everturn.model.add(script.model_copy(update={"repeat": users}))
    async with AsyncExitStack() as opened:
        turns = []
        for _ in range(users):
            client = await opened.enter_async_context(Client.signed_up(everturn.api))
            asked = await opened.enter_async_context(client.ask(question))
            await asked.until_text("One, ")
            turns.append(Followed(asked.turn_id, client.token, asked.last_id or ""))
        crowd = [turn for turn in turns for _ in range(streams - 1)]
        followers = await follow_all(everturn.api, crowd)
        assert {follower.status for follower in followers} == {200}

        everturn.stack.kill("api")
        # The model's time is short here: its answer ends while nobody hears of it.
        everturn.model.release(question)
        await asyncio.gather(*(follower.to_end() for follower in followers))
        killed = time.monotonic()
        again = await follow_all(everturn.api, crowd)
        await everturn.stack.wait_ready("api")
        seen = await asyncio.gather(*(follower.to_end() for follower in again))

    served_s = max(follower.served_at for follower in again) - killed
    first_s = min(follower.served_at for follower in again) - killed
    took = f"the first served {first_s:.1f} s after the kill, all {served_s:.1f} s"
    print(f"{len(crowd)} streams: {took}")
    assert {follower.status for follower in again} == {200}
    assert all(b"two." in each and b"event: done" in each for each in seen)
    return served_s - first_s


async def test_clients_who_read_nothing_hold_little_memory(
    everturn: ScriptedStack, client: Client, bystanders: Bystanders, others: Others
) -> None:
    question = "clients who read nothing"
    everturn.model.add(Script(match=question, text="Yes."))
    async with client.ask(question) as asked:
        await asked.to_end()
    turn = Followed(asked.turn_id, client.token)
    await _make_long(everturn, asked.turn_id)
    before_mib = bystanders.resident_mib("api")

    async with others(question):
        silent = await follow_all(everturn.api, [turn] * _SILENT)
        whole = await (await Follower.open(everturn.api, turn)).to_end()
        grown_mib = bystanders.resident_mib("api") - before_mib
        for follower in silent:
            follower.close()

    assert {follower.status for follower in silent} == {200}
    assert len(whole) > _LONG_BYTES
    print(f"{_SILENT} silent readers of {_LONG_BYTES >> 20} MiB: {grown_mib:.0f} MiB more")
    assert grown_mib < _GROWTH_MIB
    # Their places are free again.
    again = await follow_all(everturn.api, [turn] * _SILENT)
    assert {follower.status for follower in again} == {200}
    for follower in again:
        follower.close()


async def test_a_crowd_is_told_the_end_by_the_database_while_redis_is_away(
    everturn: ScriptedStack, client: Client
) -> None:
    question = "a crowd without Redis"
    everturn.model.add(
        Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1)
    )
    async with client.ask(question) as asked:
        await asked.until_text("One, ")
        turn = Followed(asked.turn_id, client.token)
        followers = await follow_all(everturn.api, [turn] * _STREAMS)
        await everturn.stack.stop("valkey")
        try:
            late = await follow_all(everturn.api, [turn] * (_SILENT - 1))
            everturn.model.release(question)
            seen = await asyncio.gather(*(each.to_end() for each in (*followers, *late)))
            await asked.to_end()
        finally:
            await everturn.stack.start("valkey")

    assert {follower.status for follower in (*followers, *late)} == {200}
    assert all(b"two." in each and each.count(b"event: done") == 1 for each in seen)
    # What the database holds is not sent again at each look at it.
    assert max(map(len, seen)) < 10_000


async def _make_long(everturn: ScriptedStack, turn_id: str) -> None:
    """Let a turn that has ended have 30 MiB of text in Redis, more than any model answers."""
    delta = json.dumps({"step": 1, "attempt": 1, "text": "x" * 16_000})
    key = stream_key(TurnId(UUID(turn_id)))
    async with Redis.from_url(everturn.stack.addresses.redis) as redis:
        entries: Any = await redis.xrange(key)
        last_id, done = entries.pop()
        await redis.delete(key)
        for entry_id, fields in entries:
            await redis.xadd(key, fields, id=entry_id)
        # In the millisecond of `done`, before it.
        moment = int(last_id.split(b"-")[0])
        pipeline = redis.pipeline(transaction=False)
        for number in range(_LONG_BYTES // 16_000 + 1):
            pipeline.xadd(key, {"n": "delta", "d": delta}, id=f"{moment}-{1000 + number}")
        pipeline.xadd(key, done, id=last_id)
        await pipeline.execute()
