"""Tokens for MCP servers: how they are asked for, used, and what a refusal costs."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.mcp.addresses import OAuthClient
from services.mcp.challenges import Challenge
from services.mcp.destinations import Destinations
from services.mcp.errors import McpServerError
from services.mcp.oauth import AuthorizedTransport, OAuthTokens
from services.outgoing.client import OutgoingClient, OutgoingResponse
from services.outgoing.errors import ForbiddenAddressError

SERVER: Final = "https://mcp.example.com/mcp"
ORIGIN: Final = "https://mcp.example.com"
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
TOKEN_URL: Final = "https://auth.example.com/token"
SECRET: Final = "the-clients-own-secret"


class Issuer(OutgoingClient):
    """An authorization server: `asked` are the forms that it got."""

    def __init__(self, **metadata: object) -> None:
        self.metadata = metadata
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[], tuple[int, object]] = self.give

    def give(self) -> tuple[int, object]:
        return 200, {"access_token": f"access-token-{len(self.asked)}", "expires_in": 3600}

    async def request(self, method: str, url: str, **given: Any) -> OutgoingResponse:  # noqa: ANN401 -- as the client's
        if method == "GET":
            found = {"issuer": ORIGIN, "token_endpoint": f"{ORIGIN}/token", **self.metadata}
            is_there = url == f"{ORIGIN}/.well-known/oauth-authorization-server"
            return OutgoingResponse(200 if is_there else 404, {}, json.dumps(found).encode())
        form = parse_qs(given["content"].decode())
        self.asked.append({name: values[0] for name, values in form.items()})
        self.headers.append(given["headers"])
        status, answer = self.answer()
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return OutgoingResponse(status, {}, body)


def tokens_of(
    issuer: Issuer, *, secret: str = SECRET, url: str | None = TOKEN_URL, scope: str | None = None
) -> OAuthTokens:
    client = OAuthClient("everturn", secret, token_url=url, scope=scope)
    return OAuthTokens(Destinations(issuer, issuer), client, SERVER)


class Server:
    """An MCP server that refuses requests; `sent` are the tokens that it got."""

    def __init__(self, *refusals: tuple[int, str]) -> None:
        self.refusals = list(refusals)
        self.sent: list[str | None] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(request.headers.get("authorization"))
        status, challenge = self.refusals.pop(0) if self.refusals else (200, "")
        return httpx2.Response(status, headers={"WWW-Authenticate": challenge}, text="{}")

    async def get(self, tokens: OAuthTokens) -> int:
        transport = AuthorizedTransport(httpx2.MockTransport(self), tokens)
        request = httpx2.Request("POST", SERVER, content=b"{}")
        return (await transport.handle_async_request(request)).status_code


async def test_the_first_request_learns_what_the_server_asks_for() -> None:
    issuer, server = Issuer(), Server((401, 'Bearer scope="read write"'))
    tokens = tokens_of(issuer, url=None)

    assert await server.get(tokens) == 200
    assert await server.get(tokens) == 200

    assert server.sent == [None, "Bearer access-token-1", "Bearer access-token-1"]
    assert [form.get("scope") for form in issuer.asked] == ["read write"]
    assert issuer.asked[0]["resource"] == SERVER


async def test_configured_scopes_are_all_that_is_requested() -> None:
    issuer = Issuer()
    server = Server(
        (401, 'Bearer scope="all"'), (403, 'Bearer error="insufficient_scope", scope="x"')
    )

    assert await server.get(tokens_of(issuer, url=None, scope="read")) == 403
    assert [form["scope"] for form in issuer.asked] == ["read"]


async def test_a_token_that_lacks_scopes_is_replaced_by_one_with_both() -> None:
    issuer = Issuer()
    tokens = tokens_of(issuer)
    lacking = 'Bearer error="insufficient_scope", scope="{}"'

    assert await Server((403, lacking.format("read"))).get(tokens) == 200
    assert await Server((403, lacking.format("write"))).get(tokens) == 200

    assert [form.get("scope") for form in issuer.asked] == [None, "read", "read write"]


async def test_scopes_that_the_token_was_requested_with_are_not_requested_again() -> None:
    issuer = Issuer()
    tokens = tokens_of(issuer)
    server = Server(*[(403, 'Bearer error="insufficient_scope", scope="read"')] * 100)

    assert [await server.get(tokens) for _ in range(5)] == [403] * 5
    assert len(issuer.asked) == 2


async def test_a_refused_scope_is_named_and_the_earlier_token_stays() -> None:
    issuer = Issuer()
    tokens = tokens_of(issuer)
    await tokens.current()
    issuer.answer = lambda: (400, {"error": "invalid_scope"})

    with pytest.raises(McpServerError) as raised:
        await Server((403, 'Bearer error="insufficient_scope", scope="admin access-token-1"')).get(
            tokens
        )

    assert str(raised.value) == (
        "The token endpoint returned no token: HTTP status 400 (invalid_scope). "
        "Requested scopes: `admin`."
    )
    assert await tokens.current() == "access-token-1"


async def test_a_server_that_rejects_each_token_gets_only_so_many() -> None:
    issuer = Issuer()
    tokens = tokens_of(issuer)

    for _ in range(100):
        assert await Server(*[(401, "Bearer")] * 10).get(tokens) == 401

    assert len(issuer.asked) == 11


async def test_a_refusal_is_answered_once_for_all_calls() -> None:
    issuer = Issuer()
    tokens = tokens_of(issuer)
    old, challenge = await tokens.current(), Challenge(scopes=("a",))

    renewed = [tokens.renewed(instead_of=old, challenge=challenge) for _ in range(20)]

    assert await asyncio.gather(*renewed) == ["access-token-2"] * 20
    assert len(issuer.asked) == 2


@pytest.mark.parametrize(
    ("methods", "is_in_header", "is_in_body"),
    [
        (["client_secret_post"], False, True),
        (["client_secret_post", "client_secret_basic"], True, False),
        (["none"], False, False),
        (["private_key_jwt", "client_secret_basic"], True, False),
    ],
)
async def test_the_secret_is_sent_as_the_metadata_says(
    methods: list[str], *, is_in_header: bool, is_in_body: bool
) -> None:
    issuer = Issuer(token_endpoint_auth_methods_supported=methods)

    await tokens_of(issuer, url=None).current()

    assert ("Authorization" in issuer.headers[0]) is is_in_header
    assert ("client_secret" in issuer.asked[0]) is is_in_body
    assert len(issuer.asked) == 1


async def test_methods_that_take_no_secret_are_a_problem() -> None:
    listed = ["tls_client_auth", "<script>", *["x" * 99] * 99]
    issuer = Issuer(token_endpoint_auth_methods_supported=listed)

    with pytest.raises(McpServerError, match=r"accepts no client secret \(tls_client_auth\)\.$"):
        await tokens_of(issuer, url=None).current()

    assert issuer.asked == []


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (rsa.generate_private_key(65_537, 2_048), "RS256"),
    ],
)
async def test_a_private_key_signs_and_is_never_sent(key: PrivateKey, algorithm: str) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    issuer = Issuer(token_endpoint_auth_methods_supported=["private_key_jwt"])

    await tokens_of(issuer, url=None, secret=pem).current()

    claims = jwt.decode(
        issuer.asked[0]["client_assertion"], key.public_key(), [algorithm], audience=ORIGIN
    )
    assert (claims["iss"], claims["sub"]) == ("everturn", "everturn")
    assert "PRIVATE KEY" not in str([issuer.asked, issuer.headers])


async def test_a_private_key_that_cannot_be_read_is_not_sent_either() -> None:
    issuer = Issuer()

    with pytest.raises(McpServerError, match="can't be read"):
        await tokens_of(issuer, secret="-----BEGIN PRIVATE KEY-----\nx").current()

    assert issuer.asked == []


@pytest.mark.parametrize(
    "lifetime", ["soon", "3600", 10**18, -5, 10**400, float("nan"), None, [], True, 0]
)
async def test_an_absurd_lifetime_is_no_reason_to_fail(lifetime: object) -> None:
    issuer = Issuer()
    issuer.answer = lambda: (200, {"access_token": "t", "expires_in": lifetime})
    tokens = tokens_of(issuer)

    assert [await tokens.current() for _ in range(3)] == ["t"] * 3
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>"),
        (200, {"access_token": "x" * 20_000}),
        (200, {"access_token": "a b"}),
        (200, {"access_token": {}}),
        (200, []),
        (500, {"error": "x" * 10_000}),
        (401, {"error": SECRET, "error_description": SECRET}),
    ],
)
async def test_what_is_no_token_is_a_problem_without_secrets(answer: tuple[int, object]) -> None:
    issuer = Issuer()
    issuer.answer = lambda: answer
    tokens = tokens_of(issuer)

    problems = set()
    for _ in range(50):
        with pytest.raises(McpServerError) as raised:
            await tokens.current()
        problems.add(str(raised.value))

    (problem,) = problems
    assert problem.startswith("The token endpoint returned")
    assert len(problem) < 200
    assert SECRET not in problem
    assert len(issuer.asked) <= 2


async def test_a_token_endpoint_that_only_a_stranger_names_must_be_public() -> None:
    class Private(Issuer):
        async def request(self, method: str, url: str, **given: Any) -> OutgoingResponse:  # noqa: ANN401 -- as the client's
            raise ForbiddenAddressError

    issuer = Issuer(token_endpoint="https://n8n.internal/webhook/pay")
    client = OAuthClient("everturn", SECRET)
    tokens = OAuthTokens(Destinations(issuer, Private()), client, SERVER)

    with pytest.raises(McpServerError, match=r"set `oauth\.tokenUrl`"):
        await tokens.current()

    assert issuer.asked == []


async def test_the_latest_tokens_are_known_in_case_that_the_server_repeats_one() -> None:
    tokens = tokens_of(Issuer())
    await tokens.current()

    assert tokens.issued == ("access-token-1",)
