"""Appends of many turns at once: sent together, each with its own answer."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ResponseError

from schema.events import NoticeEvent
from schema.ids import TurnId, new_id
from services.events.scripts import Script
from services.events.writer import Appended, EventWriter, stream_key
from tests.fixtures.stack import Stack

TURNS = 250


@pytest.fixture
def writer(stack: Stack) -> EventWriter:
    return EventWriter(stack.foundation.redis, retention_s=60)


async def events_of(stack: Stack, turn_id: TurnId) -> list[tuple[bytes, dict[bytes, bytes]]]:
    events: Any = await stack.foundation.redis.xrange(stream_key(turn_id))
    return list(events)


async def test_appends_at_the_same_time_each_reach_their_own_stream(
    stack: Stack, writer: EventWriter
) -> None:
    turns = [TurnId(new_id()) for _ in range(TURNS)]
    await stack.foundation.redis.script_flush()

    appended = await asyncio.gather(
        *(writer.append(turn, [NoticeEvent(code="code", message=str(turn))]) for turn in turns)
    )

    for turn, answer in zip(turns, appended, strict=True):
        assert isinstance(answer, Appended)
        [(event_id, fields)] = await events_of(stack, turn)
        assert (event_id.decode(), str(turn).encode() in fields[b"d"]) == (answer.last_id, True)


async def test_a_caller_that_is_cancelled_takes_no_answer_from_others(
    stack: Stack, writer: EventWriter
) -> None:
    turns = [TurnId(new_id()) for _ in range(3)]
    notice = NoticeEvent(code="code", message="m")
    waiting = [asyncio.ensure_future(writer.append(turn, [notice])) for turn in turns]
    await asyncio.sleep(0)

    waiting[1].cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(answers[1], asyncio.CancelledError)
    for turn, answer in ((turns[0], answers[0]), (turns[2], answers[2])):
        [(event_id, _)] = await events_of(stack, turn)
        assert answer == Appended(event_id.decode())


async def test_a_run_that_redis_refuses_fails_alone(stack: Stack) -> None:
    script = Script(stack.foundation.redis, "announce.lua")

    good: list[str | int] = ["channel", 10, 1000, "name", "data"]
    refused, answered = await asyncio.gather(
        script.run([f"events-{new_id()}"], ["channel"]),
        script.run([f"events-{new_id()}"], good),
        return_exceptions=True,
    )

    assert isinstance(refused, ResponseError)
    assert not isinstance(answered, Exception)
