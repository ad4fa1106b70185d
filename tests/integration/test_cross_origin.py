"""Pages of other origins in browsers: those that are allowed read responses, failures included."""

from collections.abc import AsyncIterator

import httpx
import pytest

from api.cors import allow_origins
from tests.fixtures.api_user import ApiUser
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client
from tests.integration.test_rate_limits import client_of
from tests.integration.test_rate_limits_http import AUTH, limited_app

PAGE = "https://app.example.com"


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(allow_origins(stack.app, (PAGE,))) as origin,
        api_client(origin) as client,
    ):
        yield client


def preflight(method: str, headers: str, *, origin: str = PAGE) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_an_allowed_page_may_send_requests_without_being_signed_in_yet(
    http: httpx.AsyncClient, method: str
) -> None:
    asked = preflight(method, "authorization,content-type,idempotency-key,if-match,last-event-id")

    response = await http.options("/chats", headers=asked)

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert method in response.headers["Access-Control-Allow-Methods"]
    allowed = response.headers["Access-Control-Allow-Headers"]
    assert {"authorization", "idempotency-key", "last-event-id"} <= set(allowed.split(","))
    assert "Access-Control-Allow-Credentials" not in response.headers


async def test_an_allowed_page_reads_refusals_and_their_headers(http: httpx.AsyncClient) -> None:
    for path in ("/chats", "/nowhere"):
        response = await http.get(path, headers={"Origin": PAGE})

        assert response.status_code in {401, 404}
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        readable = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"ETag", "Retry-After", "X-Request-Id", "X-Turn-Id"} <= set(readable)
        assert response.headers["Vary"] == "Origin"


async def test_an_allowed_page_reads_every_kind_of_failure(stack: Stack) -> None:
    async with (
        client_of(stack.addresses.redis) as redis,
        serving(allow_origins(limited_app(stack, redis), (PAGE,))) as origin,
        httpx.AsyncClient(base_url=origin, headers={"Origin": PAGE}, trust_env=False) as page,
    ):
        user = await ApiUser.sign_up(stack.http)
        large = b"x" * (stack.settings.max_body_bytes + 1)
        failures = [
            await page.post("/api/v1/auth/login", content=large),
            await page.get("/broken", headers=user.headers),
            *[
                await page.post("/api/v1/auth/logout", json={"refreshToken": "x"})
                for _ in range(AUTH.requests_per_minute + 1)
            ][-1:],
            await page.delete("/api/v1/chats", headers=user.headers),
        ]

    assert [response.status_code for response in failures] == [413, 500, 429, 405]
    for response in failures:
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        readable = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Allow", "Retry-After", "X-Request-Id", "RateLimit-Reset"} <= set(readable)
        assert response.headers["X-Request-Id"]


async def test_another_page_may_not(http: httpx.AsyncClient) -> None:
    other = "https://app.example.com.evil.example"

    refused = await http.options("/chats", headers=preflight("POST", "authorization", origin=other))
    read = await http.get("/health/live", headers={"Origin": other})

    assert refused.status_code == 400
    assert "Access-Control-Allow-Origin" not in read.headers


async def test_without_the_setting_no_page_may(stack: Stack) -> None:
    response = await stack.http.options("/chats", headers=preflight("POST", "authorization"))

    assert "Access-Control-Allow-Origin" not in response.headers
    assert allow_origins(stack.app, ()) is stack.app
