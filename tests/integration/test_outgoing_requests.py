"""What leaves for the outside: where it may go, how long and how much it may take, by real wire."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpcore2
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.outgoing.client import OutgoingClient
from services.outgoing.errors import (
    BrokenConnectionError,
    CompressedError,
    ConnectFailedError,
    ForbiddenAddressError,
    InvalidRequestError,
    OutgoingError,
    RedirectedError,
    TimedOutError,
    TooLargeError,
    UnknownHostError,
)
from services.outgoing.resolution import Resolve, SystemResolver
from services.outgoing.transport import guarded_transport
from tests.fakes.raw_server import Answer, RawServer, answered, saying, serving_raw

PUBLIC = "93.184.216.34"
PATIENT_S = 30.0
HASTY_S = 0.3
MIB = 1024 * 1024


class Detour(httpcore2.AsyncNetworkBackend):
    """A network in which every address is one port of loopback; it notes what was asked for."""

    def __init__(self, port: int, *, dead: Iterable[str] = ()) -> None:
        self.asked: list[str] = []
        self._port = port
        self._dead = set(dead)
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the interface of the library
        *_: object,
        **__: object,
    ) -> httpcore2.AsyncNetworkStream:
        self.asked.append(f"{host}:{port}")
        if host in self._dead:
            raise httpcore2.ConnectError
        return await self._inner.connect_tcp("127.0.0.1", self._port, timeout=timeout)


def resolving(*answers: Sequence[str]) -> Resolve:
    """Return a name server that says one thing after the other."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return left.pop(0)

    return resolve


@pytest.fixture
async def fine() -> AsyncIterator[RawServer]:
    async with serving_raw(saying(answered(b"fine"))) as server:
        yield server


@pytest.fixture
async def open_client() -> AsyncIterator[OutgoingClient]:
    async with OutgoingClient(allowed_hosts=["127.0.0.1"]) as client:
        yield client


async def failing(
    client: OutgoingClient, url: str, *, timeout_s: float = PATIENT_S, max_bytes: int = MIB
) -> OutgoingError:
    with pytest.raises(OutgoingError) as raised:
        await client.request("POST", url, content=b"{}", timeout_s=timeout_s, max_bytes=max_bytes)
    return raised.value


def kind_of(error: OutgoingError) -> tuple[type[OutgoingError], bool]:
    return type(error), error.reached


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


async def test_answers_of_any_status_are_answers(open_client: OutgoingClient) -> None:
    async with serving_raw(saying(answered(b"<html>", status="503 Busy"))) as server:
        response = await open_client.request("GET", server.url, timeout_s=PATIENT_S)

    assert (response.status, response.body) == (503, b"<html>")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "localhost.", "LOCALHOST", "127.0.0.2", "127.1", "0.0.0.0"),
        *("2130706433", "0x7f.1", "0x7f000001", "017700000001", "0177.0.0.1", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::]"),
        *("[64:ff9b::7f00:1]", "127。0。0。1", "１２７.0.0.1", "ⓛocalhost", "①②⑦.⓪.⓪.①"),  # noqa: RUF001 -- other spellings of loopback
        *("user@127.0.0.1", "127.0.0.1%00.example.com", "[::1%25lo]", "[fe80::1%25lo]"),
    ],
)
async def test_loopback_is_refused_however_it_is_written(fine: RawServer, host: str) -> None:
    async with OutgoingClient(allowed_hosts=["tools.internal", "127.0.0.1:1"]) as client:
        error = await failing(client, f"http://{host}:{fine.port}/")

    assert isinstance(error, ForbiddenAddressError | UnknownHostError | InvalidRequestError)
    assert not error.reached
    assert fine.accepted == 0


@pytest.mark.parametrize(
    "url",
    [
        *("", "/", "example", "ftp://127.0.0.1/", "file:///etc/passwd", "ws://127.0.0.1/"),
        *(
            "http://",
            "http:///x",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:0/",
            "http://[::1",
            "unix:///run/x.sock",
        ),
        *("http+unix://%2Frun%2Fx.sock/", "data:text/plain,x", "http://a b/", "http://\x00/"),
        "http://" + "a" * 70 + ".example/",
        "http://a..example/",
    ],
)
async def test_what_is_no_address_of_the_web_is_refused(
    url: str, open_client: OutgoingClient
) -> None:
    error = await failing(open_client, url)

    assert isinstance(error, InvalidRequestError | UnknownHostError)
    assert not error.reached


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X": "ü€"}, {"Bad Name": "x"}])
async def test_headers_that_would_break_the_request_are_refused(
    headers: dict[str, str], fine: RawServer, open_client: OutgoingClient
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await open_client.request("GET", fine.url, headers=headers, timeout_s=PATIENT_S)

    assert not raised.value.reached
    assert fine.requests == []


async def test_a_name_with_one_address_of_a_private_network_is_refused(fine: RawServer) -> None:
    network = Detour(fine.port)
    resolve = resolving([PUBLIC, "10.0.0.1"])
    async with OutgoingClient(allowed_hosts=[], resolve=resolve, network=network) as client:
        error = await failing(client, "http://tools.example/")

    assert kind_of(error) == (ForbiddenAddressError, False)
    assert "tools.example" not in str(error)
    assert (network.asked, fine.accepted) == ([], 0)


async def test_the_address_that_was_checked_is_the_one_connected_to(fine: RawServer) -> None:
    network = Detour(fine.port)
    # Whoever asked a second time would be told of loopback.
    resolve = resolving([PUBLIC], ["127.0.0.1"])
    async with OutgoingClient(allowed_hosts=[], resolve=resolve, network=network) as client:
        response = await client.request("GET", "http://tools.example:81/", timeout_s=PATIENT_S)

    assert response.body == b"fine"
    assert network.asked == [f"{PUBLIC}:81"]
    assert b"host: tools.example:81" in fine.requests[0].lower()


async def test_a_name_that_is_bound_again_is_refused_at_the_next_connection() -> None:
    async with serving_raw(saying(answered(b"fine", "Connection: close"))) as server:
        network = Detour(server.port)
        resolve = resolving([PUBLIC], ["127.0.0.1"])
        async with OutgoingClient(allowed_hosts=[], resolve=resolve, network=network) as client:
            await client.request("GET", "http://tools.example/", timeout_s=PATIENT_S)
            error = await failing(client, "http://tools.example/")

    assert kind_of(error) == (ForbiddenAddressError, False)
    assert (network.asked, server.accepted) == ([f"{PUBLIC}:80"], 1)


async def test_the_next_address_is_tried_where_one_does_not_answer(fine: RawServer) -> None:
    network = Detour(fine.port, dead=["2606:4700::1", "1.1.1.1"])
    resolve = resolving(["2606:4700::1", "1.1.1.1", PUBLIC])
    async with OutgoingClient(allowed_hosts=[], resolve=resolve, network=network) as client:
        response = await client.request("GET", "http://tools.example/", timeout_s=PATIENT_S)

    assert response.body == b"fine"
    assert network.asked == ["2606:4700::1:80", "1.1.1.1:80", f"{PUBLIC}:80"]


async def test_nobody_at_an_address_is_a_failed_connection(
    unused_tcp_port: int, open_client: OutgoingClient
) -> None:
    error = await failing(open_client, f"http://127.0.0.1:{unused_tcp_port}/")

    assert kind_of(error) == (ConnectFailedError, False)


async def test_a_name_without_an_address_is_unknown(open_client: OutgoingClient) -> None:
    error = await failing(open_client, "http://nowhere.invalid/")

    assert kind_of(error) == (UnknownHostError, False)


async def test_a_name_server_that_is_silent_is_waited_for_as_long_as_the_request_may_take() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with OutgoingClient(allowed_hosts=[], resolve=resolve) as client:
        error = await failing(client, "http://tools.example/", timeout_s=HASTY_S)

    assert kind_of(error) == (TimedOutError, False)


async def test_one_question_answers_all_who_ask_for_a_host_at_once() -> None:
    resolver = SystemResolver()
    try:
        answers = await asyncio.gather(*(resolver("localhost", 80) for _ in range(50)))
    finally:
        resolver.close()

    assert len({tuple(answer) for answer in answers}) == 1
    assert all(ip_address(address).is_loopback for address in answers[0])


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
async def test_a_redirect_is_named_and_not_followed(
    status: str, fine: RawServer, open_client: OutgoingClient
) -> None:
    wire = answered(b"", f"Location: {fine.url}?token=hush", status=status)
    async with serving_raw(saying(wire)) as server:
        error = await failing(open_client, server.url)

    assert kind_of(error) == (RedirectedError, True)
    assert "redirect" in str(error)
    assert "hush" not in str(error)
    assert str(fine.port) not in str(error)
    assert fine.accepted == 0


async def test_whoever_follows_redirects_is_checked_again(fine: RawServer) -> None:
    target = f"http://localhost:{fine.port}/"
    async with serving_raw(saying(answered(b"", f"Location: {target}", status="302 F"))) as server:
        transport = guarded_transport(allowed_hosts=["127.0.0.1"])
        async with httpx2.AsyncClient(
            transport=transport, follow_redirects=True, trust_env=False
        ) as client:
            with pytest.raises(ForbiddenAddressError):
                await client.get(server.url)

    assert (server.accepted, fine.accepted) == (1, 0)


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
async def test_an_answer_that_does_not_come_to_an_end_is_given_up(
    answer: Answer, open_client: OutgoingClient
) -> None:
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


async def with_ten_mebibytes(_: RawServer, writer: asyncio.StreamWriter) -> None:
    writer.write(answered(b"x" * 10 * MIB))
    await writer.drain()


@pytest.mark.parametrize("answer", [endlessly, endlessly_until_closed, with_ten_mebibytes])
async def test_an_answer_that_is_too_large_is_not_read_to_its_end(
    answer: Answer, open_client: OutgoingClient
) -> None:
    async with serving_raw(answer) as server:
        error = await failing(open_client, server.url, max_bytes=MIB)
        async with asyncio.timeout(PATIENT_S):
            await server.hung_up.wait()

    assert kind_of(error) == (TooLargeError, True)
    assert str(error) == "It answered more than 1,048,576 bytes."


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


async def test_a_compressed_body_that_does_not_say_so_stays_as_it_is(
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
    assert str(error) == "The connection to it broke."


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


async def test_a_proxy_of_the_environment_is_not_asked(
    fine: RawServer, open_client: OutgoingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_raw(saying(answered(b"proxy"))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with OutgoingClient(allowed_hosts=["127.0.0.1"]) as client:
            response = await client.request("GET", fine.url, timeout_s=PATIENT_S)

    assert (response.body, proxy.accepted) == (b"fine", 0)


async def test_a_transport_bounds_all_answers_together_or_each() -> None:
    async with serving_raw(saying(answered(b"x" * 600))) as server:
        total = guarded_transport(allowed_hosts=["127.0.0.1"], max_total_bytes=1000)
        async with httpx2.AsyncClient(transport=total, trust_env=False) as client:
            await client.get(server.url)
            with pytest.raises(TooLargeError):
                await client.get(server.url)
        each = guarded_transport(allowed_hosts=["127.0.0.1"], max_response_bytes=1000)
        async with httpx2.AsyncClient(transport=each, trust_env=False) as client:
            answers = [await client.get(server.url) for _ in range(3)]
        small = guarded_transport(allowed_hosts=["127.0.0.1"], max_response_bytes=500)
        async with httpx2.AsyncClient(transport=small, trust_env=False) as client:
            with pytest.raises(TooLargeError):
                await client.get(server.url)

    assert [len(answer.content) for answer in answers] == [600] * 3


async def test_sockets_of_this_machine_are_refused(tmp_path: Path) -> None:
    transport = guarded_transport(allowed_hosts=["127.0.0.1"])
    network = transport._pool._network_backend
    async with transport:
        with pytest.raises(ForbiddenAddressError):
            await network.connect_unix_socket(str(tmp_path / "x.sock"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a certificate for `tools.example`, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tools.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("tools.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + made.public_bytes(serialization.Encoding.PEM)
    path = tmp_path_factory.mktemp("tls") / "tools.pem"
    path.write_bytes(pem)
    return path


Secured = Callable[[str], Awaitable[bytes]]


@pytest.fixture
async def secured(certificate: Path) -> AsyncIterator[Secured]:
    """Yield what asks a server of `tools.example` under any name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    async with serving_raw(saying(answered(b"fine")), tls=context) as server:

        async def ask(host: str) -> bytes:
            async with OutgoingClient(
                allowed_hosts=[],
                resolve=resolving([PUBLIC]),
                network=Detour(server.port),
                tls=trusting,
            ) as client:
                answer = await client.request("GET", f"https://{host}/", timeout_s=PATIENT_S)
            return answer.body

        yield ask


async def test_a_certificate_is_verified_for_the_name_of_the_host(secured: Secured) -> None:
    assert await secured("tools.example") == b"fine"


async def test_a_certificate_for_another_name_is_refused(secured: Secured) -> None:
    with pytest.raises(ConnectFailedError, match="certificate") as raised:
        await secured("other.example")

    assert not raised.value.reached
