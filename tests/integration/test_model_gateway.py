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

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


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


async def interim(_: RawServer, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 x\r\n\r\n" * 2_000)
        await writer.drain()


async def chunk_extensions(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS)
    while True:
        writer.write(b"1;" + b"x" * 60_000 + b"\r\n:\r\n")
        await writer.drain()


@pytest.mark.parametrize("answer", [interim, chunk_extensions])
async def test_what_is_around_a_body_has_a_bound_of_its_own(answer: Answer) -> None:
    async with calling(answer) as (gateway, _):
        error = await failure(gateway)

    assert (error.kind, error.retryable) == (FailureKind.BROKEN_STREAM, True)


async def test_an_answer_in_small_chunks_is_read() -> None:
    async def small(_: RawServer, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS)
        for event in WHOLE.splitlines(keepends=True):
            writer.write(b"%x;name=value\r\n%s\r\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\r\nDigest: x\r\n\r\n")

    async with calling(small) as (gateway, _):
        assert (await ask(gateway)).blocks == [{"type": "text", "text": "Hello"}]


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

    assert error.kind is FailureKind.BROKEN_STREAM
    assert turns - before > 40


@pytest.mark.parametrize("status", ["301 Moved", "303 Other", "307 Again", "308 Moved"])
async def test_a_redirect_takes_neither_the_conversation_nor_the_key_elsewhere(status: str) -> None:
    async with serving_raw(saying(answered(WHOLE))) as elsewhere:
        answer = answered(b"", f"Location: {elsewhere.url}", status=status)
        async with calling(saying(answer)) as (gateway, server):
            error = await failure(gateway)

    assert (error.kind, error.retryable) == (FailureKind.REFUSED, False)
    assert len(server.requests) == 1
    assert not elsewhere.requests


async def test_cookies_of_one_answer_are_not_sent_with_the_next_request() -> None:
    cookies = [f"Set-Cookie: c{number}={'x' * 50}" for number in range(1_000)]
    async with calling(saying(answered(WHOLE, *cookies))) as (gateway, server):
        await ask(gateway)
        await ask(gateway)

    assert len(server.requests) == 2
    assert not [request for request in server.requests if b"\ncookie:" in request.lower()]


async def test_a_second_answer_to_one_request_is_not_the_answer_to_the_next() -> None:
    of_another = answered(streamed(message_start(), *text("Not yours"), *message_end()))
    async with calling(saying(answered(WHOLE) + of_another)) as (gateway, server):
        answers = [await ask(gateway) for _ in range(3)]

    assert [answer.blocks for answer in answers] == [[{"type": "text", "text": "Hello"}]] * 3
    assert len(server.requests) == 3


async def close(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        close,
        saying(b"SSH-2.0-OpenSSH\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    ],
    ids=["nothing", "no HTTP", "a length below zero"],
)
async def test_a_request_without_a_response_may_have_been_counted(answer: Answer) -> None:
    async with calling(answer) as (gateway, _):
        error = await failure(gateway)

    assert (error.kind, error.retryable) == (FailureKind.BROKEN_STREAM, True)
    assert error.was_answering


async def test_a_request_that_is_never_sent_costs_nothing(unused_tcp_port: int) -> None:
    gateway = ModelGateway(
        api_key="key",
        base_url=f"http://127.0.0.1:{unused_tcp_port}",
        idle_timeout_s=20,
        answer_timeout_s=20,
        connections=5,
    )

    error = await failure(gateway)
    await gateway.close()

    assert (error.kind, error.retryable) == (FailureKind.UNREACHABLE, True)
    assert not error.was_answering


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        (b'{"input_tokens": 12}', 12),
        (b'{"input_tokens": "12"}', "12"),
        (b"[12]", None),
        (b"<html>", None),
    ],
)
async def test_a_count_is_what_the_provider_says_whatever_it_is(
    body: bytes, counted: object
) -> None:
    async with calling(saying(answered(body))) as (gateway, server):
        assert await gateway.count_tokens(REQUEST) == counted

    (request,) = server.requests
    assert request.startswith(b"POST /v1/messages/count_tokens ")
    assert b"max_tokens" not in request


async def test_a_count_that_is_refused_fails_as_a_call_does() -> None:
    async with calling(saying(answered(b"{}", status="404 Not Found"))) as (gateway, _):
        with pytest.raises(ModelCallError) as caught:
            await gateway.count_tokens(REQUEST)

    assert caught.value.kind is FailureKind.REFUSED
