"""The model gateway against servers that write their own bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.models.failures import FailureKind, ModelCallError
from services.models.gateway import AnswerEnded, ModelGateway, ModelRequest
from tests.fakes.raw_server import Answer, RawServer, answered, saying, serving_raw
from tests.fakes.scripted_model.raw_answers import message_end, message_start, text
from tests.fixtures.model_answers import streamed

WHOLE = streamed(message_start(), *text("Hello"), *message_end())
REQUEST = ModelRequest(
    model="m",
    system=[],
    messages=[{"role": "user", "content": "Hi"}],
    tools=[{"name": "one", "input_schema": {"type": "object"}}],
    max_tokens=100,
)


@asynccontextmanager
async def calling(
    answer: Answer, *, answer_timeout_s: float = 20
) -> AsyncIterator[tuple[ModelGateway, RawServer]]:
    async with serving_raw(answer) as server:
        gateway = ModelGateway(
            api_key="key",
            base_url=server.url,
            idle_timeout_s=20,
            answer_timeout_s=answer_timeout_s,
            connections=5,
        )
        yield gateway, server
        await gateway.close()


async def ask(gateway: ModelGateway) -> AnswerEnded:
    ended = [event async for event in gateway.stream(REQUEST)][-1]
    assert isinstance(ended, AnswerEnded)
    return ended


async def failure(gateway: ModelGateway) -> ModelCallError:
    with pytest.raises(ModelCallError) as caught:
        await ask(gateway)
    return caught.value


async def test_a_connection_is_used_again_and_asks_for_no_compression() -> None:
    async with calling(saying(answered(WHOLE))) as (gateway, server):
        first, second = await ask(gateway), await ask(gateway)

    assert first.blocks == second.blocks == [{"type": "text", "text": "Hello"}]
    assert server.accepted == 1
    assert all(b"accept-encoding: identity" in request.lower() for request in server.requests)


@pytest.mark.parametrize(
    ("status", "body", "kind", "tool"),
    [
        (
            "400 Bad",
            json.dumps(
                {"type": "error", "error": {"message": "tools.0.custom.input_schema: no"}}
            ).encode(),
            FailureKind.TOOLS_REFUSED,
            0,
        ),
        ("400 Bad", b"prompt is too long: 2 tokens > 1 maximum", FailureKind.TOO_LARGE, None),
        ("500 Oops", b"x" * 10_000_000, FailureKind.OVERLOADED, None),
        ("529 Busy", b"", FailureKind.OVERLOADED, None),
        ("302 Found", b"", FailureKind.REFUSED, None),
        ("401 No", b"{" * 10_000, FailureKind.CREDENTIALS, None),
    ],
)
async def test_an_error_response_is_read_within_bounds(
    status: str, body: bytes, kind: FailureKind, tool: int | None
) -> None:
    async with calling(saying(answered(body, status=status))) as (gateway, _):
        error = await failure(gateway)

    assert (error.kind, error.refused_tool_index) == (kind, tool)
    assert error.__cause__ is None


async def test_a_response_without_a_head_is_left_in_time() -> None:
    async def silent(_: RawServer, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with calling(silent, answer_timeout_s=0.2) as (gateway, _):
        error = await failure(gateway)

    assert error.kind is FailureKind.RUNAWAY


async def test_others_run_while_interim_responses_flood_in() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def flood(_: RawServer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 x\r\n\r\n" * 5_000)
        writer.close()

    async with calling(flood) as (gateway, _):
        await failure(gateway)
        task = asyncio.create_task(other())
        before = turns
        error = await failure(gateway)
        task.cancel()

    assert error.kind is FailureKind.UNREACHABLE
    assert turns - before > 40
