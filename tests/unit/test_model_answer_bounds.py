"""How much of an answer is read, how it may be compressed, and what others notice meanwhile."""

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from services.models.assembly import MAX_BLOCKS
from services.models.event_stream import max_answer_bytes
from services.models.failures import FailureKind
from services.models.gateway import ThoughtArrived
from tests.fakes.scripted_model.raw_answers import tool_use
from tests.fixtures.model_answers import (
    END,
    EVENT_STREAM,
    HELLO,
    START,
    TEXT,
    WHOLE,
    delta,
    ended,
    read_answer,
    started,
    streamed,
)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZIP"])
async def test_a_compressed_body_is_read(coding: str) -> None:
    body = zlib.compress(WHOLE) if coding == "deflate" else gzip.compress(WHOLE)

    answer = await read_answer(
        (body[start : start + 5] for start in range(0, len(body), 5)),
        headers={**EVENT_STREAM, "content-encoding": coding},
    )

    assert answer.whole.blocks == HELLO


async def test_a_compressed_body_of_several_members_is_read_whole() -> None:
    body = b"".join(gzip.compress(WHOLE[start : start + 50]) for start in range(0, len(WHOLE), 50))

    answer = await read_answer([body], headers={**EVENT_STREAM, "content-encoding": "gzip"})

    assert answer.whole.blocks == HELLO


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip"])
async def test_a_body_in_another_coding_is_an_interrupted_answer(coding: str) -> None:
    answer = await read_answer([WHOLE], headers={**EVENT_STREAM, "content-encoding": coding})

    assert answer.failed.kind is FailureKind.BROKEN_STREAM


def flood(unit: bytes, megabytes: int) -> list[bytes]:
    return [unit * (1024 * 1024 // len(unit))] * megabytes


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: ", *flood(b"x", 60)],
        flood(b"\n", 60),
        flood(b": keep-alive\n\n", 60),
        flood(b"data: {}\n", 60),
        flood(streamed(delta("text_delta", text="x")), 60),
        [b"{", *flood(b" ", 60)],
        [streamed({"type": "new", "x": [[]] * 9_000})] * 3,
        [streamed(*[started("text")] * (MAX_BLOCKS + 1))],
    ],
    ids=["line", "blank", "comments", "one event", "deltas", "json", "items", "blocks"],
)
async def test_an_answer_beyond_its_bytes_is_left(chunks: list[bytes]) -> None:
    answer = await read_answer(
        chunks if chunks[0] == b"{" else [streamed(START), *chunks],
        headers=EVENT_STREAM,
        max_tokens=1,
    )

    assert (answer.failed.kind, answer.failed.retryable) == (FailureKind.RUNAWAY, True)
    assert len(answer.text) <= max_answer_bytes(1)


@pytest.mark.parametrize(("start", "unit"), [(b"", b"\n"), (b"data: ", b"x")])
async def test_a_small_body_that_grows_beyond_its_bytes_is_left(start: bytes, unit: bytes) -> None:
    bomb = gzip.compress(start + unit * 200_000_000, 1)

    answer = await read_answer(
        [bomb], headers={**EVENT_STREAM, "content-encoding": "gzip"}, max_tokens=1
    )

    assert (answer.failed.kind, answer.failed.retryable) == (FailureKind.RUNAWAY, True)
    assert len(answer.text) <= max_answer_bytes(1)


async def test_an_answer_that_drips_is_left_in_time() -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield streamed(START)
        while True:
            yield b":\n"
            await asyncio.sleep(0.01)

    answer = await read_answer(drip(), timeout_s=0.1)

    assert answer.failed.kind is FailureKind.RUNAWAY


async def test_an_answer_that_stays_open_behind_its_end_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.models.event_stream._REMAINS_S", 0.05)

    async def silent() -> AsyncIterator[bytes]:
        yield WHOLE
        await asyncio.Event().wait()

    assert (await read_answer(silent())).whole.blocks == HELLO


async def test_a_connection_that_breaks_behind_the_stop_reason_takes_nothing_away() -> None:
    async def broken(*events: dict[str, Any]) -> AsyncIterator[bytes]:
        yield streamed(*events)
        raise httpx2.ReadError("gone")

    whole = await read_answer(broken(START, *TEXT, END[0]))
    half = await read_answer(broken(START, *TEXT))

    assert whole.whole.blocks == HELLO
    assert half.failed.kind is FailureKind.BROKEN_STREAM


async def test_thoughts_are_passed_on_as_they_come() -> None:
    thinking = [
        started("thinking", thinking=""),
        delta("thinking_delta", thinking="Hm."),
        delta("thinking_delta", thinking="Hm."),
    ]

    answer = await read_answer([streamed(START, *thinking, *END)])

    assert [event.text for event in answer.events if isinstance(event, ThoughtArrived)] == [
        "Hm.Hm."
    ]


@pytest.mark.parametrize(
    "chunks",
    [
        flood(streamed(delta("text_delta", text="x")), 1),
        flood(b"data:{}\n\n", 1),
        [streamed(*[started("new", x="é" * 50_000)] * 10), streamed(*END)],
        [streamed(*tool_use("t", json.dumps({"x": ["é" * 90] * 900})), *ended("tool_use"))],
    ],
    ids=["deltas", "empty events", "large blocks", "a large input"],
)
async def test_others_run_while_an_answer_floods_in(chunks: list[bytes]) -> None:
    waits: list[float] = []

    async def other() -> None:
        while True:
            # Of this thread's own work: the machine may have other.
            before = time.thread_time()
            await asyncio.sleep(0)
            waits.append(time.thread_time() - before)

    task = asyncio.create_task(other())
    await read_answer([streamed(START), *chunks], max_tokens=200_000)
    task.cancel()

    assert len(waits) > 2
    # Generous: it was 19 s.
    assert max(waits) < 0.25
