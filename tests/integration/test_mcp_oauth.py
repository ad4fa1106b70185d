"""MCP servers that want tokens: got by client credentials, kept, renewed, and refused."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi.responses import HTMLResponse, JSONResponse

from services.tools.definition import ToolUnavailableError
from tests.fakes.mcp_server import HttpServer, serving_mcp
from tests.fakes.token_endpoint import CLIENT, TokenEndpoint, serving_tokens
from tests.fixtures.mcp import McpScene


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    """What gives tokens."""
    async with serving_tokens() as served:
        yield served


@pytest.fixture
async def guarded(endpoint: TokenEndpoint) -> AsyncIterator[HttpServer]:
    """A server that takes those tokens alone."""
    async with serving_mcp("tools", token="none yet") as served:
        endpoint.given = served.tokens.add
        yield served


async def registered(
    mcp: McpScene,
    guarded: HttpServer,
    endpoint: TokenEndpoint | None,
    secret: str = CLIENT[1],
) -> str:
    oauth = {"client_id": CLIENT[0], "scope": "tools"}
    if endpoint is not None:
        oauth["token_url"] = endpoint.url
    return await mcp.http(guarded.url, oauth=oauth, secret=secret)


async def problem_of(mcp: McpScene, server: str) -> str:
    """Return what ends a call at once."""
    outcome = await mcp.call(server, "echo")
    assert outcome.is_error
    return outcome.output


async def test_one_token_does_for_many_calls(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint
) -> None:
    server = await registered(mcp, guarded, endpoint)

    outcomes = await asyncio.gather(*(mcp.call(server, "echo") for _ in range(20)))

    assert not any(outcome.is_error for outcome in outcomes)
    assert endpoint.asked == [
        {"grant_type": "client_credentials", "resource": guarded.url, "scope": "tools"}
    ]


async def test_a_secret_accepted_only_in_the_body_is_sent_there(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint
) -> None:
    endpoint.takes_header = False
    server = await registered(mcp, guarded, endpoint)

    assert not (await mcp.call(server, "echo")).is_error


async def test_a_rejected_token_is_renewed_once_for_all_calls(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint
) -> None:
    server = await registered(mcp, guarded, endpoint)
    await mcp.call(server, "echo")
    guarded.tokens.remove("token-1")

    outcomes = await asyncio.gather(*(mcp.call(server, "echo") for _ in range(10)))

    assert not any(outcome.is_error for outcome in outcomes)
    assert len(endpoint.asked) == 2


async def test_a_token_that_is_about_to_expire_is_not_used(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await registered(mcp, guarded, endpoint)
    await mcp.call(server, "echo")
    later = asyncio.get_running_loop().time() + 3600
    monkeypatch.setattr("services.mcp.oauth.monotonic", lambda: later)

    await mcp.call(server, "echo")

    assert len(endpoint.asked) == 2


async def test_a_server_that_refuses_every_token_fails_without_a_loop(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint
) -> None:
    endpoint.given = lambda _: None
    server = await registered(mcp, guarded, endpoint)

    assert "HTTP status 401" in await problem_of(mcp, server)
    assert len(endpoint.asked) == 2


async def test_an_invalid_secret_is_reported_without_quoting_it(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint
) -> None:
    server = await registered(mcp, guarded, endpoint, secret="wrong-secret")

    problem = await problem_of(mcp, server)

    assert "HTTP status 401 (invalid_client)" in problem
    assert "wrong-secret" not in problem


@pytest.mark.parametrize(
    "broken",
    [
        HTMLResponse("<html>sign in</html>"),
        JSONResponse({"token_type": "bearer"}),
        JSONResponse({"access_token": "a\nb", "token_type": "bearer"}),
        JSONResponse({"access_token": "a", "token_type": "mac"}),
        HTMLResponse("x" * 200_000),
        HTMLResponse("", status_code=302, headers={"Location": "http://169.254.169.254/"}),
    ],
)
async def test_an_endpoint_that_returns_no_token_is_a_problem(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint, broken: HTMLResponse
) -> None:
    endpoint.broken = broken
    server = await registered(mcp, guarded, endpoint)

    assert "The token endpoint" in await problem_of(mcp, server)


@pytest.mark.parametrize(
    "broken",
    [
        JSONResponse({"error": "<b>"}, status_code=500),
        JSONResponse({"error": "invalid_client"}, status_code=503),
        JSONResponse({"error": "temporarily_unavailable"}, status_code=400),
        JSONResponse({"error": "slow_down"}, status_code=429),
    ],
)
async def test_an_endpoint_that_may_return_a_token_later_is_waited_for(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint, broken: JSONResponse
) -> None:
    endpoint.broken = broken
    server = await registered(mcp, guarded, endpoint)

    with pytest.raises(ToolUnavailableError, match="The token endpoint") as raised:
        await mcp.call(server, "echo")
    assert not raised.value.reached


@pytest.mark.parametrize(
    "code", ["invalid_client", "unauthorized_client", "invalid_scope", "invalid_grant"]
)
async def test_an_endpoint_that_refuses_the_client_is_asked_once(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint, code: str
) -> None:
    endpoint.broken = JSONResponse({"error": code}, status_code=403)
    server = await registered(mcp, guarded, endpoint)

    problems = [await problem_of(mcp, server) for _turn in range(2)]

    assert f"HTTP status 403 ({code})" in problems[0]
    assert problems[0] == problems[1]
    assert len(endpoint.asked) == 1


async def test_an_endpoint_in_a_private_network_is_refused(
    mcp: McpScene, guarded: HttpServer
) -> None:
    oauth = {"client_id": "everturn", "token_url": "http://localhost:1/token"}
    server = await mcp.http(guarded.url, oauth=oauth, secret="s")

    assert "EVERTURN_ALLOWED_PRIVATE_HOSTS" in await problem_of(mcp, server)


async def test_the_token_endpoint_is_discovered(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint
) -> None:
    guarded.authorization_server = endpoint.origin
    server = await registered(mcp, guarded, None)

    assert not (await mcp.call(server, "echo")).is_error


async def test_an_authorization_server_with_another_issuer_gets_no_secret(
    mcp: McpScene, guarded: HttpServer, endpoint: TokenEndpoint
) -> None:
    guarded.authorization_server = endpoint.origin
    endpoint.names_issuer = "https://other.example.com"
    server = await registered(mcp, guarded, None)

    assert "issuer does not match" in await problem_of(mcp, server)
    assert endpoint.asked == []


async def test_a_server_without_a_token_endpoint_is_a_problem(
    mcp: McpScene, guarded: HttpServer
) -> None:
    server = await registered(mcp, guarded, None)

    assert "tokenUrl" in await problem_of(mcp, server)
