"""Outgoing requests over real sockets: what is sent, and limits on a response's time and size."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx2
import pytest

from services.outgoing.client import OutgoingClient
from services.outgoing.errors import (
    BrokenConnectionError,
    CompressedError,
    InvalidRequestError,
    TimedOutError,
    TooLargeError,
)
from services.outgoing.transport import MAX_COOKIES, guarded_transport
from tests.fakes.raw_server import Answer, RawServer, answered, saying, serving_raw
from tests.fixtures.outgoing_failures import HASTY_S, MIB, PATIENT_S, failing, kind_of


@pytest.fixture
async def fine() -> AsyncIterator[RawServer]:
    async with serving_raw(saying(answered(b"fine"))) as server:
        yield server


@pytest.fixture
async def open_client() -> AsyncIterator[OutgoingClient]:
    async with OutgoingClient(allowed_hosts=["127.0.0.1"]) as client:
        yield client


async def test_a_host_that_is_allowed_by_name_answers(
    fine: RawServer, open_client: OutgoingClient
) -> None:
    response = await open_client.request(
        "POST",
        fine.url,
        headers={"X-Key": "k", "accept-encoding": "gzip"},
        content=b"hello",
        timeout_s=PATIENT_S,
    )

    assert (response.status, response.headers["CONTENT-length"], response.body) == (
        200,
        "4",
        b"fine",
    )
    head, _, body = fine.requests[0].partition(b"\r\n\r\n")
    assert body == b"hello"
    assert b"x-key: k" in head.lower()
    assert head.lower().count(b"accept-encoding") == 1
    assert b"accept-encoding: identity" in head.lower()


async def test_a_second_answer_to_one_request_is_not_the_answer_to_the_next(
    open_client: OutgoingClient,
) -> None:
    async with serving_raw(saying(answered(b"yours") + answered(b"not yours"))) as server:
        responses = [
            await open_client.request("GET", server.url, timeout_s=PATIENT_S) for _ in range(3)
        ]

    assert [response.body for response in responses] == [b"yours"] * 3
    assert len(server.requests) == 3


@pytest.mark.parametrize(("sent", "kept"), [(MAX_COOKIES, MAX_COOKIES), (2_000, 0)])
async def test_a_flood_of_cookies_is_not_passed_on(sent: int, kept: int) -> None:
    cookies = [f"Set-Cookie: c{number}=v" for number in range(sent)]
    async with (
        serving_raw(saying(answered(b"fine", *cookies))) as server,
        httpx2.AsyncClient(transport=guarded_transport(allowed_hosts=["127.0.0.1"])) as client,
    ):
        response = await client.get(server.url)

    assert (response.text, len(client.cookies)) == ("fine", kept)


async def test_answers_of_any_status_are_answers(open_client: OutgoingClient) -> None:
    async with serving_raw(saying(answered(b"<html>", status="503 Busy"))) as server:
        response = await open_client.request("GET", server.url, timeout_s=PATIENT_S)

    assert (response.status, response.body) == (503, b"<html>")


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X": "ü€"}, {"Bad Name": "x"}])
async def test_headers_that_would_break_the_request_are_refused(
    headers: dict[str, str], fine: RawServer, open_client: OutgoingClient
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await open_client.request("GET", fine.url, headers=headers, timeout_s=PATIENT_S)

    assert not raised.value.reached
    assert fine.requests == []


async def never(_: RawServer, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def in_drips(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.01)


async def head_in_drips(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await asyncio.sleep(0.01)


async def about_to_continue(_: RawServer, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [never, in_drips, head_in_drips, about_to_continue])
async def test_an_endless_answer_is_abandoned(answer: Answer, open_client: OutgoingClient) -> None:
    async with serving_raw(answer) as server:
        error = await failing(open_client, server.url, timeout_s=HASTY_S)
        async with asyncio.timeout(PATIENT_S):
            await server.hung_up.wait()

    assert kind_of(error) == (TimedOutError, True)


async def endlessly(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()


async def endlessly_until_closed(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def byte_by_byte(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n" * 5_000)
        await writer.drain()


async def with_ten_mebibytes(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(answered(b"x" * 10 * MIB))
    await writer.drain()


@pytest.mark.parametrize(
    "answer", [endlessly, endlessly_until_closed, byte_by_byte, with_ten_mebibytes]
)
async def test_an_answer_that_is_too_large_is_not_read_to_its_end(
    answer: Answer, open_client: OutgoingClient
) -> None:
    async with serving_raw(answer) as server:
        error = await failing(open_client, server.url, max_bytes=MIB)
        async with asyncio.timeout(PATIENT_S):
            await server.hung_up.wait()

    assert kind_of(error) == (TooLargeError, True)
    assert str(error) == "The response exceeds 1,048,576 bytes."


async def continuing(_: RawServer, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5_000)
        await writer.drain()


async def test_interim_responses_without_end_are_not_read_without_end(
    open_client: OutgoingClient,
) -> None:
    async with serving_raw(continuing) as server:
        error = await failing(open_client, server.url)

    assert kind_of(error) == (BrokenConnectionError, True)


async def test_an_answer_of_exactly_the_size_is_read(open_client: OutgoingClient) -> None:
    async with serving_raw(saying(answered(b"x" * 1000))) as server:
        response = await open_client.request("GET", server.url, timeout_s=30, max_bytes=1000)

    assert len(response.body) == 1000


async def test_a_compressed_answer_is_refused_before_it_is_read(
    open_client: OutgoingClient,
) -> None:
    bomb = gzip.compress(bytes(50 * MIB))
    for encoding in ("gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP"):
        wire = answered(bomb, f"Content-Encoding: {encoding}")
        async with serving_raw(saying(wire)) as server:
            error = await failing(open_client, server.url)
        assert kind_of(error) == (CompressedError, True)


async def test_an_undeclared_compressed_body_is_unchanged(
    open_client: OutgoingClient,
) -> None:
    bomb = gzip.compress(bytes(MIB))
    async with serving_raw(saying(answered(bomb, "Content-Encoding: identity"))) as server:
        response = await open_client.request("GET", server.url, timeout_s=PATIENT_S)

    assert response.body == bomb


async def closing_at_once(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def closing_in_the_middle(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()


async def closing_in_a_chunk(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        closing_at_once,
        closing_in_the_middle,
        closing_in_a_chunk,
        saying(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        saying(b"HTTP/1.1 two hundred\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx"),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"),
    ],
)
async def test_a_broken_answer_is_an_error_that_quotes_nothing(
    answer: Answer, open_client: OutgoingClient
) -> None:
    async with serving_raw(answer) as server:
        error = await failing(open_client, server.url)

    assert kind_of(error) == (BrokenConnectionError, True)
    assert str(error) == "The connection was lost."


async def test_cancelling_a_request_closes_its_connection(open_client: OutgoingClient) -> None:
    asked = asyncio.Event()

    async def answer(_: RawServer, __: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving_raw(answer) as server, asyncio.timeout(PATIENT_S):
        request = asyncio.create_task(open_client.request("GET", server.url, timeout_s=PATIENT_S))
        await asked.wait()
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
        await server.hung_up.wait()

    assert request.cancelled()


async def test_two_hundred_requests_at_once_are_answered(
    open_client: OutgoingClient,
) -> None:
    everybody = asyncio.Event()

    async def answer(server: RawServer, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 200:
            everybody.set()
        await everybody.wait()
        writer.write(answered(b"fine"))

    async with serving_raw(answer) as server:
        responses = await asyncio.gather(
            *(open_client.request("GET", server.url, timeout_s=60) for _ in range(200))
        )
        again = await open_client.request("GET", server.url, timeout_s=PATIENT_S)

    assert [response.status for response in responses] == [200] * 200
    assert (again.status, server.accepted) == (200, 200)


async def test_no_cookie_of_one_request_is_sent_with_the_next(open_client: OutgoingClient) -> None:
    async with serving_raw(saying(answered(b"", "Set-Cookie: who=ada"))) as server:
        for _ in range(2):
            await open_client.request("GET", server.url, timeout_s=PATIENT_S)

    assert len(server.requests) == 2
    assert all(b"cookie" not in request.lower() for request in server.requests)


async def test_a_transport_bounds_each_answer() -> None:
    async with serving_raw(saying(answered(b"x" * 600))) as server:
        each = guarded_transport(allowed_hosts=["127.0.0.1"], max_response_bytes=1000)
        async with httpx2.AsyncClient(transport=each, trust_env=False) as client:
            answers = [await client.get(server.url) for _ in range(3)]
        small = guarded_transport(allowed_hosts=["127.0.0.1"], max_response_bytes=500)
        async with httpx2.AsyncClient(transport=small, trust_env=False) as client:
            with pytest.raises(TooLargeError):
                await client.get(server.url)

    assert [len(answer.content) for answer in answers] == [600] * 3
