"""Answers of the demo model that break, are left, are held, or are many at once, by real wire."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import anthropic
import httpx2
import pytest
from anthropic.types import Message

from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.request_log import RequestRecord
from tests.fakes.scripted_model.scripts import Script
from tests.fakes.scripted_model.server import serve
from tests.fixtures.messages_client import ask, only_text, stream

FOREVER_S = 3600.0


@pytest.fixture(scope="module")
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture(scope="module")
async def client(model: ScriptedModel) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with (
        serve(model) as url,
        anthropic.AsyncAnthropic(api_key="key", base_url=url, max_retries=0) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def no_script_is_left(model: ScriptedModel) -> Iterator[None]:
    yield
    model.clear_scripts()


async def leave(
    model: ScriptedModel, asking: asyncio.Task[Message], until: Callable[[RequestRecord], bool]
) -> RequestRecord:
    """Cancel the request once its record is as wanted; return the record when it has ended."""
    seen = len(model.requests)
    await model.wait_until(lambda: len(model.requests) > seen and until(model.requests[seen]))
    asking.cancel()
    record = model.requests[seen]
    await model.wait_until(lambda: record.ended)
    return record


@pytest.mark.parametrize("count", [0, 2, 9])
async def test_a_broken_stream_ends_in_the_middle_of_a_chunk(
    model: ScriptedModel,
    client: anthropic.AsyncAnthropic,
    caplog: pytest.LogCaptureFixture,
    count: int,
) -> None:
    model.add(Script(pieces=("a", "b", "c"), break_after=count))
    pieces: list[str] = []

    with pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"):
        await stream(client, pieces=pieces)

    record = model.requests[-1]
    assert pieces == ["a", "b", "c"][:count]
    assert record.deltas_sent == len(pieces)
    assert (record.finished, record.disconnected_at) == (False, None)
    assert [log for log in caplog.records if log.name == "uvicorn.error"] == []


async def test_an_unstreamed_answer_breaks_before_it_begins(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello", break_after=1))

    with pytest.raises(anthropic.APIConnectionError):
        await ask(client)


async def test_an_error_in_mid_stream_names_its_type(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(pieces=("a", "b"), error_after=1))
    pieces: list[str] = []

    with pytest.raises(anthropic.APIStatusError) as caught:
        await stream(client, pieces=pieces)

    assert pieces == ["a"]
    assert (caught.value.type, caught.value.status_code) == ("overloaded_error", 200)
    assert model.requests[-1].ended
    assert not model.requests[-1].finished


async def test_an_error_in_an_unstreamed_answer_is_its_status(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello", error_after=1))

    with pytest.raises(anthropic.OverloadedError):
        await ask(client)


async def test_a_client_that_leaves_a_stalled_stream_is_noticed(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(pieces=("12345678", "9"), stall_after=1))
    asking = asyncio.create_task(stream(client, "Hello, you"))

    record = await leave(model, asking, lambda record: record.deltas_sent == 1)

    assert record.disconnected_at is not None
    assert not record.finished
    assert (record.usage.input_tokens, record.usage.output_tokens) == (3, 2)


async def test_a_client_that_leaves_before_the_first_token_is_billed_nothing(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello", delay_to_first_s=FOREVER_S))
    asking = asyncio.create_task(stream(client))

    record = await leave(model, asking, lambda _: True)

    assert record.disconnected_at is not None
    assert (record.status, record.usage.input_tokens) == (None, 0)


async def test_a_client_that_leaves_between_two_deltas_is_noticed(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(pieces=("a", "b"), delay_between_s=FOREVER_S))
    asking = asyncio.create_task(stream(client))

    record = await leave(model, asking, lambda record: record.deltas_sent == 1)

    assert record.disconnected_at is not None


async def test_a_client_that_leaves_a_held_stream_is_noticed(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(text="Hello", hold="never opened"))
    asking = asyncio.create_task(stream(client))

    record = await leave(model, asking, lambda record: record.status == 200)

    assert record.disconnected_at is not None
    assert record.deltas_sent == 0


async def test_a_held_stream_continues_when_it_is_released(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    model.add(Script(match="wait for me", pieces=("a", "b", "c"), hold="gate", hold_after=2))
    asking = asyncio.create_task(stream(client, "Please wait for me"))
    held = await model.wait_for_request(match="wait for me")
    await model.wait_until(lambda: held.deltas_sent == 2)

    others = await ask(client, "I do not wait")
    model.release("gate")

    assert only_text(others)
    assert only_text(await asking) == "abc"
    assert held.finished


async def test_concurrent_requests_get_the_scripts_that_match_them(
    model: ScriptedModel, client: anthropic.AsyncAnthropic
) -> None:
    numbers = range(8)
    for number in reversed(numbers):
        model.add(Script(match=f"number {number}", text=f"answer {number}"))

    answers = await asyncio.gather(*(stream(client, f"number {number}") for number in numbers))

    assert [only_text(answer) for answer in answers] == [f"answer {number}" for number in numbers]


async def test_joined_events_are_the_same_answer() -> None:
    model = ScriptedModel(join_events=True)
    model.add(Script(pieces=("a", "b", "c"), thinking="Hm."))
    async with (
        serve(model) as url,
        anthropic.AsyncAnthropic(api_key="key", base_url=url, max_retries=0) as client,
    ):
        pieces: list[str] = []
        await stream(client, pieces=pieces)

    assert pieces == ["a", "b", "c"]
