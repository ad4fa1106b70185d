"""Connections of clients that send too much, too little, too slowly, or something else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Network

import pytest

from api.connections import ConnectionBounds
from tests.fixtures.echoing import MEBIBYTE, EchoingApplication
from tests.fixtures.raw_client import RawClient
from tests.fixtures.serving import serving

PATIENT = ConnectionBounds()
HASTY = ConnectionBounds(head_timeout_s=0.5, body_timeout_s=0.5, stall_timeout_s=0.5)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


Connect = Callable[[], Awaitable[RawClient]]


@asynccontextmanager
async def connecting(app: EchoingApplication, bounds: ConnectionBounds) -> AsyncIterator[Connect]:
    """Serve `app`, and yield what opens a connection to it."""
    clients: list[RawClient] = []
    async with serving(app, bounds=bounds) as origin:

        async def connect() -> RawClient:
            client = await RawClient.connect(origin)
            clients.append(client)
            return client

        try:
            yield connect
        finally:
            app.may_go.set()
            for client in clients:
                await client.close()


@pytest.fixture(scope="module")
def hasty_app() -> EchoingApplication:
    return EchoingApplication()


@pytest.fixture
def app(hasty_app: EchoingApplication) -> EchoingApplication:
    """The application behind `hasty`, as new."""
    hasty_app.ended.clear()
    hasty_app.may_go.clear()
    return hasty_app


@pytest.fixture(scope="module")
async def connect() -> AsyncIterator[Connect]:
    """Connections with the bounds of production."""
    async with connecting(EchoingApplication(), PATIENT) as opened:
        yield opened


@pytest.fixture(scope="module")
async def hasty(hasty_app: EchoingApplication) -> AsyncIterator[Connect]:
    """Connections to a server that waits half a second, as less is little on a busy machine."""
    async with connecting(hasty_app, HASTY) as opened:
        yield opened


# Size


async def test_a_header_without_end_is_refused_before_it_is_collected(connect: Connect) -> None:
    client = await connect()
    client.say(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")

    async def talk() -> None:
        with suppress(ConnectionError):
            for _ in range(50):
                client.say(b"a" * MEBIBYTE)
                await client.writer.drain()

    talking = asyncio.create_task(talk())
    refusal = await client.refusal()
    talking.cancel()

    assert refusal == (431, "HEADERS_TOO_LARGE")


@pytest.mark.parametrize(
    ("head", "refusal"),
    [
        (b"X: " + b"a" * 70_000, (431, "HEADERS_TOO_LARGE")),
        (b"\r\n".join(b"X%d: %s" % (n, b"a" * 900) for n in range(90)), (431, "HEADERS_TOO_LARGE")),
        (b"\r\n".join([b"X: y"] * 101), (431, "HEADERS_TOO_LARGE")),
    ],
)
async def test_a_whole_head_that_is_too_large_is_refused(
    connect: Connect, head: bytes, refusal: tuple[int, str]
) -> None:
    client = await connect()

    assert await client.say(GET[:-2] + head + b"\r\n\r\n").refusal() == refusal


async def test_a_long_url_is_refused(connect: Connect) -> None:
    client = await connect()

    refusal = await client.say(b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n").refusal()

    assert refusal == (414, "URI_TOO_LONG")


async def test_empty_lines_without_end_are_refused(connect: Connect) -> None:
    client = await connect()

    assert await client.say(b"\r\n" * 40_000).refusal() == (431, "HEADERS_TOO_LARGE")


async def test_a_large_head_within_the_bound_is_served_and_so_is_the_next_request(
    connect: Connect,
) -> None:
    client = await connect()
    body = POST + b"Content-Length: 300000\r\n\r\n" + b"a" * 300_000

    large = await client.say(GET[:-2] + b"X: " + b"a" * 60_000 + b"\r\n\r\n").response()
    # The next head stands behind 300 kB in the same read.
    with_body = await client.say(body + GET).response()
    after = await client.response()

    assert (large[0], with_body[0], after[0]) == (200, 200, 200)


@pytest.mark.parametrize(
    "flood",
    [
        b"1;" + b"x=y;" * 50_000,
        b"1\r\na\r\n" * 50_000,
        b"1\r\na\r\n0\r\nX: " + b"y" * 200_000,
    ],
    ids=["extensions", "chunks of one byte", "trailers"],
)
async def test_a_body_that_is_mostly_not_body_is_refused(connect: Connect, flood: bytes) -> None:
    client = await connect()

    assert await client.say(CHUNKED + flood).refusal() == (400, "VALIDATION_ERROR")


# Time


@pytest.mark.parametrize("begun", [b"G", b"\r\n", GET[:-2]])
async def test_a_head_that_does_not_end_is_refused(hasty: Connect, begun: bytes) -> None:
    client = await hasty()

    assert await client.say(begun).refusal() == (408, "REQUEST_TIMEOUT")


async def test_many_half_open_requests_are_all_closed(hasty: Connect) -> None:
    clients = [(await hasty()).say(GET[:-2]) for _ in range(200)]

    refusals = await asyncio.gather(*(client.refusal() for client in clients))

    assert set(refusals) == {(408, "REQUEST_TIMEOUT")}


async def test_a_connection_that_says_nothing_is_closed_without_a_word(hasty: Connect) -> None:
    client = await hasty()

    assert await client.until_closed() == b""


async def test_an_idle_connection_waits_for_its_next_request_but_not_within_one(
    hasty: Connect,
) -> None:
    client = await hasty()
    await client.say(GET).response()
    # It is closed later than the other would be.
    await (await hasty()).until_closed()
    again = await client.say(GET).response()

    assert again[0] == 200
    assert await client.say(GET[:-2]).refusal() == (408, "REQUEST_TIMEOUT")


async def test_a_response_under_way_has_all_the_time_it_needs(
    hasty: Connect, app: EchoingApplication
) -> None:
    client = await hasty()
    client.say(GET.replace(b"/", b"/wait", 1) + GET[:-2])
    await (await hasty()).until_closed()
    app.may_go.set()

    assert (await client.response())[0] == 200
    assert await client.refusal() == (408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize(
    "begun", [POST + b"Content-Length: 9\r\n\r\nabc", CHUNKED + b"3\r\nabc\r\n"]
)
async def test_a_body_that_does_not_end_is_refused(
    hasty: Connect, app: EchoingApplication, begun: bytes
) -> None:
    client = await hasty()

    assert await client.say(begun).refusal() == (408, "REQUEST_TIMEOUT")
    async with asyncio.timeout(10):
        await app.ended.wait()


async def test_a_long_body_may_come_slowly(hasty: Connect) -> None:
    client = await hasty()
    client.say(POST + b"Content-Length: 1500\r\n\r\n")
    for _ in range(4):
        client.say(b"a" * 300)
        await client.expect_nothing(for_s=0.25)
    client.say(b"a" * 300)

    assert (await client.response())[2]["body"] == "a" * 1500


async def test_the_rest_of_a_body_that_nobody_needs_is_not_waited_for(hasty: Connect) -> None:
    client = await hasty()
    client.say(b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nabc")

    assert (await client.response())[0] == 200
    assert await client.until_closed() == b""


async def test_a_client_that_does_not_read_is_cut_off(
    hasty: Connect, app: EchoingApplication
) -> None:
    client = await hasty()
    client.say(GET.replace(b"/", b"/flood", 1))
    async with asyncio.timeout(10):
        await client.reader.readuntil(b"\r\n\r\n")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, too
        await app.ended.wait()

    assert app.ended.is_set()


# Numbers


async def test_an_address_has_so_many_connections_and_others_have_theirs() -> None:
    bounds = ConnectionBounds(max_connections_per_address=2)
    async with connecting(EchoingApplication(), bounds) as connect:
        served = [await connect(), await connect()]
        for client in served:
            await client.say(GET).response()
        refusal = await (await connect()).refusal()
        await served[0].close()
        again = await until_served(connect)

    assert refusal == (429, "RATE_LIMITED")
    assert again == 200


async def until_served(connect: Connect) -> int:
    """Return the status of the first request that is not refused."""
    async with asyncio.timeout(10):
        while (status := (await (await connect()).say(GET).response())[0]) == 429:
            pass
    return status


async def test_all_addresses_together_have_so_many_connections() -> None:
    bounds = ConnectionBounds(
        max_connections=1,
        max_connections_per_address=1,
        trusted_proxies=(IPv4Network("127.0.0.0/8"),),
    )
    async with connecting(EchoingApplication(), bounds) as connect:
        await (await connect()).say(GET).response()

        assert await (await connect()).refusal() == (503, "SERVICE_UNAVAILABLE")


async def test_half_open_connections_make_room_for_others() -> None:
    bounds = ConnectionBounds(max_connections_per_address=2)
    async with connecting(EchoingApplication(), bounds) as connect:
        served = await connect()
        await served.say(GET).response()
        silent = await connect()
        newer = await connect()

        assert await silent.until_closed() == b""
        assert (await newer.say(GET).response())[0] == 200
        assert (await served.say(GET).response())[0] == 200


# Order


async def test_responses_come_in_order_and_a_bad_request_behind_them_closes(
    connect: Connect,
) -> None:
    client = await connect()
    client.say(GET.replace(b"/", b"/1", 1) + GET.replace(b"/", b"/2", 1) + b"\x00\r\n\r\n")

    assert [(await client.response())[2]["path"] for _ in range(2)] == ["/1", "/2"]
    assert await client.until_closed() == b""


async def test_few_requests_may_wait_behind_another(connect: Connect) -> None:
    client = await connect()

    client.say(GET * 1000)
    answered = (await client.until_closed()).count(b"HTTP/1.1 200")

    assert answered == 17


# Meaning


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://elsewhere HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Content-Length: 3, 3\r\n\r\nabc",
        POST + b"Content-Length: -3\r\n\r\nabc",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ],
)
async def test_what_servers_could_understand_differently_is_refused(
    connect: Connect, request_: bytes
) -> None:
    client = await connect()

    assert await client.say(request_).refusal() == (400, "VALIDATION_ERROR")


async def test_trailers_are_not_headers(connect: Connect) -> None:
    client = await connect()
    client.say(CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n")

    _, _, said = await client.response()

    assert said["body"] == "abc"
    assert said["headers"].keys() == {"host", "transfer-encoding"}


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_a_body_behind_an_offered_upgrade_is_no_request_of_its_own(
    connect: Connect, protocol: bytes
) -> None:
    client = await connect()
    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    offer = b"Connection: Upgrade\r\nUpgrade: %s\r\nContent-Length: %d\r\n\r\n"
    client.say(POST + offer % (protocol, len(hidden)))
    await client.expect_nothing(for_s=0.05)
    client.say(hidden)

    assert (await client.response())[2]["body"] == hidden.decode()
    assert (await client.say(GET).response())[2]["path"] == "/"


async def test_a_refused_body_that_was_announced_ends_the_connection(connect: Connect) -> None:
    client = await connect()
    client.say(
        b"POST /deaf HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    )

    status, headers, _ = await client.response()

    assert (status, headers["connection"]) == (200, "close")
    assert await client.until_closed() == b""


async def test_http_1_0_is_served(connect: Connect) -> None:
    client = await connect()

    assert (await client.say(b"GET / HTTP/1.0\r\n\r\n").response())[0] == 200
    assert await client.until_closed() == b""
