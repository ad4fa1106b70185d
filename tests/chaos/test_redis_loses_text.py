"""Text that Redis could not take is published once it is back, even if the model adds none."""

from typing import Any

from redis.asyncio import Redis

from schema.events import StepEvent
from schema.ids import TurnId, new_id
from services.events.deltas import DeltaBuffer
from services.events.writer import EventWriter, stream_key
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually


async def test_lost_text_does_not_wait_for_the_models_next_word(everturn: ScriptedStack) -> None:
    turn_id = TurnId(new_id())
    start = StepEvent(step=1, attempt=1, model="any")
    async with Redis.from_url(everturn.stack.addresses.redis) as redis:

        async def stored() -> list[bytes]:
            entries: Any = await redis.xrange(stream_key(turn_id))
            return [fields[b"n"] for _, fields in entries]

        await everturn.stack.stop("valkey")
        writer = EventWriter(redis, retention_s=60)
        async with DeltaBuffer(writer, turn_id=turn_id, start=start, interval_s=0.03) as text:
            text.add("Said while Redis was away.")
            await everturn.stack.start("valkey")

            assert await eventually(stored, lambda names: names == [b"step", b"delta"])
