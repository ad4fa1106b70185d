"""Strangers at the socket of the API, who send too much, too little, or too slowly."""

import asyncio
from collections import Counter
from contextlib import suppress

from tests.fixtures.raw_client import RawClient
from tests.running_everturn.bystanders import Bystanders, Others
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack

_PIECE = 64 * 1024
"""Sent at once; more would keep the process of the test from answering as the model."""
_HEAD = b"GET /api/v1/health/live HTTP/1.1\r\nHost: x\r\n"
_BODY = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_TOO_LATE = (408, "REQUEST_TIMEOUT")


async def test_a_header_of_50_mb_is_refused_and_never_held(
    everturn: ScriptedStack, client: Client, others: Others, bystanders: Bystanders
) -> None:
    before = bystanders.resident_mib("api")
    async with others("a header of 50 MB") as more:
        while await more():
            stranger = await RawClient.connect(everturn.api)
            sending = asyncio.create_task(send(stranger, _HEAD + b"X: ", b"a" * _PIECE, times=800))
            refusal = await stranger.refusal()
            await sending
            held = bystanders.resident_mib("api") - before
            await stranger.close()
            assert refusal == (431, "HEADERS_TOO_LARGE")
            assert held < 20

    assert (await client.request("GET", "chats")).status_code == 200


async def test_500_half_open_requests_are_closed(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    async with others("500 half-open requests"):
        strangers = [await RawClient.connect(everturn.api) for _ in range(500)]
        for stranger in strangers:
            stranger.say(_HEAD + b"X: " + b"a" * 8192)
        refusals = await asyncio.gather(*(stranger.refusal() for stranger in strangers))
        await asyncio.gather(*(stranger.close() for stranger in strangers))

    assert Counter(refusals) == {_TOO_LATE: 500}
    assert (await client.request("GET", "chats")).status_code == 200


async def test_bodies_of_thousands_of_unknown_fields_are_refused(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    fields = b",".join(b'"k%d":1' % number for number in range(80_000))
    request = b"%sContent-Length: %d\r\n\r\n{%s}" % (_BODY, len(fields) + 2, fields)
    async with others("bodies of 80,000 unknown fields") as more:
        while await more():
            stranger = await RawClient.connect(everturn.api)
            stranger.say(request)
            status, headers, _ = await stranger.response()
            assert (status, len(headers["content-length"])) == (400, 3)
            await stranger.close()

    assert (await client.request("GET", "chats")).status_code == 200


async def test_a_length_of_5000_digits_is_a_length(everturn: ScriptedStack) -> None:
    stranger = await RawClient.connect(everturn.api)
    stranger.say(b"%sContent-Length: %s2\r\n\r\n{}" % (_BODY, b"0" * 5_000))

    status, _, body = await stranger.response()

    assert (status, body["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert len(body["error"]["details"]) == 2
    await stranger.close()


async def test_bodies_that_stop_half_way_are_refused(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    async with others("100 bodies that stop half-way"):
        strangers = [await RawClient.connect(everturn.api) for _ in range(100)]
        for stranger in strangers:
            stranger.say(_BODY + b'Content-Length: 5000\r\n\r\n{"email": "')
        refusals = await asyncio.gather(*(stranger.refusal() for stranger in strangers))
        await asyncio.gather(*(stranger.close() for stranger in strangers))

    assert Counter(refusals) == {_TOO_LATE: 100}
    assert (await client.request("GET", "chats")).status_code == 200


async def test_a_crowd_that_signs_in_is_answered_in_turn(
    everturn: ScriptedStack, others: Others
) -> None:
    async with others("4 sign-ins at once") as more:
        while await more():
            strangers = [await RawClient.connect(everturn.api) for _ in range(4)]
            for number, stranger in enumerate(strangers):
                body = b'{"email": "stranger%d@example.com", "password": "a wrong one"}' % number
                stranger.say(b"%sContent-Length: %d\r\n\r\n%s" % (_BODY, len(body), body))
            answers = await asyncio.gather(*(stranger.response() for stranger in strangers))
            await asyncio.gather(*(stranger.close() for stranger in strangers))
            assert {status for status, _, _ in answers} == {401}


async def test_a_body_in_pieces_of_one_byte_is_refused(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    head = _BODY + b"Transfer-Encoding: chunked\r\n\r\n"
    async with others("a body in chunks of one byte") as more:
        while await more():
            stranger = await RawClient.connect(everturn.api)
            sending = asyncio.create_task(send(stranger, head, b"1\r\na\r\n" * 10_000, times=100))
            refusal = await stranger.refusal()
            await sending
            await stranger.close()
            assert refusal == (400, "VALIDATION_ERROR")

    assert (await client.request("GET", "chats")).status_code == 200


async def send(stranger: RawClient, head: bytes, piece: bytes, *, times: int) -> None:
    """Send all of it, or what the other side takes."""
    with suppress(ConnectionError):
        stranger.say(head)
        for _ in range(times):
            stranger.say(piece)
            await stranger.writer.drain()
