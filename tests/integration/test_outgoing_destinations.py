"""Where requests to the outside may go: which hosts, by which address, and no further."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
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
    ConnectFailedError,
    ForbiddenAddressError,
    InvalidRequestError,
    NotTrustedError,
    RedirectedError,
    TimedOutError,
    UnknownHostError,
)
from services.outgoing.network import Resolve, SystemResolver
from services.outgoing.transport import guarded_transport
from tests.fakes.raw_server import RawServer, answered, saying, serving_raw, speaking_plain_text
from tests.fixtures.outgoing_failures import HASTY_S, PATIENT_S, failing, kind_of

PUBLIC = "93.184.216.34"


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
    """Return a name server that gives one answer after the other."""
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
async def test_invalid_urls_are_rejected(url: str, open_client: OutgoingClient) -> None:
    error = await failing(open_client, url)

    assert isinstance(error, InvalidRequestError | UnknownHostError)
    assert not error.reached


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
    # A second lookup would return loopback.
    resolve = resolving([PUBLIC], ["127.0.0.1"])
    async with OutgoingClient(allowed_hosts=[], resolve=resolve, network=network) as client:
        response = await client.request("GET", "http://tools.example:81/", timeout_s=PATIENT_S)

    assert response.body == b"fine"
    assert network.asked == [f"{PUBLIC}:81"]
    assert b"host: tools.example:81" in fine.requests[0].lower()


async def test_a_rebound_name_is_refused_at_the_next_connection() -> None:
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


async def test_a_closed_port_is_a_failed_connection(
    unused_tcp_port: int, open_client: OutgoingClient
) -> None:
    error = await failing(open_client, f"http://127.0.0.1:{unused_tcp_port}/")

    assert kind_of(error) == (ConnectFailedError, False)


async def test_a_server_without_tls_is_not_trusted() -> None:
    async with (
        speaking_plain_text() as port,
        OutgoingClient(allowed_hosts=["127.0.0.1"]) as client,
    ):
        error = await failing(client, f"https://127.0.0.1:{port}/")

    assert (kind_of(error), error.is_final) == ((NotTrustedError, False), True)


class Names:
    """Name servers that answer with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, host: str, port: int) -> list[str]:
        """Resolve nothing."""
        raise self._error


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), True),
        (UnicodeError("label too long"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), False),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), False),
        (OSError("Too many open files"), False),
    ],
    ids=["none", "invalid", "temporary", "failure", "system"],
)
async def test_a_name_that_does_not_exist_is_not_one_that_has_no_answer(
    monkeypatch: pytest.MonkeyPatch, error: Exception, *, is_final: bool
) -> None:
    monkeypatch.setattr("services.outgoing.network._getaddrinfo", Names(error))

    async with OutgoingClient(allowed_hosts=["n8n"]) as client:
        unknown = await failing(client, "http://tools.example/")
        container = await failing(client, "http://n8n:5678/")

    assert (kind_of(unknown), unknown.is_final) == ((UnknownHostError, False), is_final)
    # Its name exists while it runs.
    assert not container.is_final


async def test_a_silent_name_server_is_bounded_by_the_request_timeout() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with OutgoingClient(allowed_hosts=[], resolve=resolve) as client:
        error = await failing(client, "http://tools.example/", timeout_s=HASTY_S)

    assert kind_of(error) == (TimedOutError, False)


async def test_concurrent_lookups_of_a_host_share_one_query() -> None:
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


async def test_followed_redirects_are_checked_again(fine: RawServer) -> None:
    target = f"http://localhost:{fine.port}/"
    async with serving_raw(saying(answered(b"", f"Location: {target}", status="302 F"))) as server:
        transport = guarded_transport(allowed_hosts=["127.0.0.1"])
        async with httpx2.AsyncClient(
            transport=transport, follow_redirects=True, trust_env=False
        ) as client:
            with pytest.raises(ForbiddenAddressError):
                await client.get(server.url)

    assert (server.accepted, fine.accepted) == (1, 0)


async def test_a_proxy_of_the_environment_is_not_asked(
    fine: RawServer, open_client: OutgoingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_raw(saying(answered(b"proxy"))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with OutgoingClient(allowed_hosts=["127.0.0.1"]) as client:
            response = await client.request("GET", fine.url, timeout_s=PATIENT_S)

    assert (response.body, proxy.accepted) == (b"fine", 0)


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
    with pytest.raises(NotTrustedError, match="certificate") as raised:
        await secured("other.example")

    assert (raised.value.reached, raised.value.is_final) == (False, True)
