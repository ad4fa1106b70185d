"""Pages of other origins in browsers: those that are allowed read responses, failures included."""

from collections.abc import AsyncIterator

import httpx
import pytest

from api.cors import allow_origins
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client

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
