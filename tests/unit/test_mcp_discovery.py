"""Token endpoints of MCP servers: found by what the server says, and never beyond what it may."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from services.mcp.challenges import Challenge
from services.mcp.destinations import Destinations
from services.mcp.discovery import TokenEndpoint, discover
from services.mcp.errors import McpServerError, Outlook
from services.outgoing.client import OutgoingClient, OutgoingResponse
from services.outgoing.errors import ConnectFailedError, TimedOutError, TooLargeError

SERVER: Final = "https://mcp.example.com/mcp"
ISSUER: Final = "https://auth.example.com"
RESOURCE_AT: Final = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
ISSUER_AT: Final = f"{ISSUER}/.well-known/oauth-authorization-server"
RESOURCE: Final[dict[str, Any]] = {"resource": SERVER, "authorization_servers": [ISSUER]}
METADATA: Final[dict[str, Any]] = {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}


class Documents(OutgoingClient):
    """A client of a few documents; `asked` are the URLs that were requested."""

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self._documents = documents
        self.asked: list[str] = []

    async def request(self, method: str, url: str, **_: Any) -> OutgoingResponse:  # noqa: ANN401 -- as the client's
        self.asked.append(url)
        found = self._documents.get(url)
        if isinstance(found, Exception):
            raise found
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        return OutgoingResponse(404 if found is None else 200, {}, body)


async def found(
    documents: Mapping[str, Any],
    challenge: Challenge | None = None,
    *,
    public: Documents | None = None,
    server: str = SERVER,
) -> TokenEndpoint:
    destinations = Destinations(Documents(documents), public or Documents({}))
    return await discover(destinations, server, challenge or Challenge())


async def refusal(documents: Mapping[str, Any], **given: Any) -> str:  # noqa: ANN401 -- as above
    with pytest.raises(McpServerError) as raised:
        await found(documents, **given)
    return str(raised.value)


async def test_the_metadata_named_by_a_refusal_is_followed() -> None:
    named = "https://mcp.example.com/about/me.json"

    endpoint = await found(
        {named: {**RESOURCE, "scopes_supported": ["a", 7, "b c"]}, ISSUER_AT: METADATA},
        Challenge(resource_metadata=named),
    )

    assert endpoint == TokenEndpoint(
        url=f"{ISSUER}/token", resource=SERVER, issuer=ISSUER, named_by=ISSUER_AT, scopes=("a",)
    )


async def test_metadata_of_another_host_is_requested_without_private_addresses() -> None:
    named = "https://n8n.internal/webhook/delete-everything"
    public = Documents({})
    documents = {RESOURCE_AT: RESOURCE, ISSUER_AT: METADATA}

    endpoint = await found(documents, Challenge(resource_metadata=named), public=public)

    assert endpoint.url == f"{ISSUER}/token"
    assert public.asked == [named]


async def test_metadata_without_https_is_not_requested() -> None:
    named = "http://mcp.example.com/about"
    public = Documents({named: RESOURCE})

    await found(
        {RESOURCE_AT: RESOURCE, ISSUER_AT: METADATA},
        Challenge(resource_metadata=named),
        public=public,
    )

    assert public.asked == []


@pytest.mark.parametrize(
    ("listed", "methods"),
    [
        (["client_secret_post"], ("client_secret_post",)),
        (["private_key_jwt", 7, None], ("private_key_jwt",)),
        ("client_secret_post", ("client_secret_basic", "client_secret_post")),
    ],
)
async def test_the_methods_of_a_token_endpoint_are_read(
    listed: object, methods: tuple[str, ...]
) -> None:
    metadata = {**METADATA, "token_endpoint_auth_methods_supported": listed}

    assert (await found({RESOURCE_AT: RESOURCE, ISSUER_AT: metadata})).methods == methods


@pytest.mark.parametrize(
    "resource",
    ["https://victim.example.com/mcp", "nonsense", "http://[", "https://mcp.example.com/other"],
)
async def test_metadata_of_another_resource_is_refused(resource: str) -> None:
    documents = {RESOURCE_AT: {**RESOURCE, "resource": resource}, ISSUER_AT: METADATA}

    assert "different resource" in await refusal(documents)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"issuer": "https://other.example.com"}, "issuer does not match"),
        ({"token_endpoint": "http://auth.example.com/token"}, "HTTPS"),
        ({"token_endpoint": "javascript:alert(1)"}, "invalid URL"),
        ({"token_endpoint": "https://[/"}, "invalid URL"),
        ({"token_endpoint": "https://x/" + "y" * 3_000}, "invalid URL"),
    ],
)
async def test_metadata_of_a_token_endpoint_is_checked(
    metadata: Mapping[str, str], problem: str
) -> None:
    documents = {RESOURCE_AT: RESOURCE, ISSUER_AT: {**METADATA, **metadata}}

    assert problem in await refusal(documents)


@pytest.mark.parametrize("issuer", ["", "nonsense", "http://[", "https://a b/", "https://u:p@x/"])
async def test_an_issuer_that_is_no_url_is_refused(issuer: str) -> None:
    documents = {RESOURCE_AT: {**RESOURCE, "authorization_servers": [issuer]}}

    assert "invalid URL" in await refusal(documents)


@pytest.mark.parametrize(
    "broken", [TooLargeError(1), b"<html>", b"[" * 10_000, b"\xff", {"issuer": 7}, [], None]
)
async def test_a_document_that_is_none_is_as_if_missing(broken: object) -> None:
    documents = {RESOURCE_AT: RESOURCE, ISSUER_AT: broken}

    assert "does not advertise a token endpoint" in await refusal(documents)


async def test_a_server_of_the_first_protocol_issues_tokens_itself() -> None:
    metadata_at = "https://mcp.example.com/.well-known/oauth-authorization-server"
    metadata = {
        "issuer": "https://mcp.example.com/oauth",
        "token_endpoint": "https://mcp.example.com/oauth/token",
    }

    assert (await found({metadata_at: metadata})).resource == SERVER
    elsewhere = metadata | {"issuer": "https://evil.example.com"}
    assert "issuer" in await refusal({metadata_at: elsewhere})


@pytest.mark.parametrize(
    ("failure", "outlook"),
    [
        (None, "missing"),
        (b"<html>", "missing"),
        (TooLargeError(1), "missing"),
        (ConnectFailedError(), "away"),
        (TimedOutError(reached=True), "away"),
    ],
)
async def test_metadata_that_cannot_be_read_may_be_read_later(
    failure: object, outlook: Outlook
) -> None:
    with pytest.raises(McpServerError, match="does not advertise") as raised:
        await found({RESOURCE_AT: RESOURCE, ISSUER_AT: failure})

    assert raised.value.outlook == outlook


async def test_metadata_that_must_not_be_followed_is_refused() -> None:
    with pytest.raises(McpServerError, match="issuer") as raised:
        await found({RESOURCE_AT: RESOURCE, ISSUER_AT: METADATA | {"issuer": "https://else.test"}})

    assert raised.value.outlook == "refused"
