"""The model, the floor and the client of `make bench`, as programs."""

from collections.abc import AsyncIterator

import pytest

from tests.load.model import Play
from tests.load.stage import Ground, open_ground


@pytest.fixture(scope="module")
async def ground() -> AsyncIterator[Ground]:
    async with open_ground() as opened:
        yield opened


async def test_the_client_counts_the_tokens_that_messages_ask_for(ground: Ground) -> None:
    play = Play(first_s=0.0, tokens=3, between_s=0.0)
    batch = await ground.floor_batch(play, 4, concurrency=2)
    assert [len(sample.delays_ms) for sample in batch.samples] == [3, 3, 3, 3]
    # The clock of model and client is the same: no token arrives before it was sent.
    assert min(batch.delays_ms) >= 0


async def test_a_tool_is_called_before_the_tokens_come(ground: Ground) -> None:
    play = Play(first_s=0.0, tokens=2, between_s=0.0, tool="calculator")
    (sample,) = (await ground.floor_batch(play, 1, concurrency=1)).samples
    assert sample.completed
    assert len(sample.delays_ms) == 2


async def test_a_held_answer_ends_when_its_gate_is_opened(ground: Ground) -> None:
    play = Play(first_s=0.0, tokens=2, between_s=0.0, hold="gate")
    (first,) = await ground.client.open([ground.floor_request(play)])
    assert len(first.delays_ms) == 1
    await ground.release("gate")
    (sample,) = await ground.client.wait()
    assert len(sample.delays_ms) == 2
