"""What is common to all answers: request ids, errors, and what an outage looks like."""

import re
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from api.app import create_app
from tests.fixtures.api_user import PASSWORD, ApiUser
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client
from workers.composition.api import open_api_services
from workers.composition.foundation import open_foundation


async def test_the_request_id_is_echoed(recorded: httpx.AsyncClient) -> None:
    response = await recorded.get("/health/live", headers={"X-Request-Id": "mine-1"})

    assert response.headers["x-request-id"] == "mine-1"
    assert response.json()["meta"] == {"requestId": "mine-1"}


@pytest.mark.parametrize("offered", ["", "with space", "x" * 129, "caf\xe9"])
async def test_an_unusable_request_id_is_replaced(
    recorded: httpx.AsyncClient, offered: str
) -> None:
    headers = {b"X-Request-Id": offered.encode("latin-1")}

    first = await recorded.get("/health/live", headers=headers)
    second = await recorded.get("/health/live", headers=headers)

    assert first.headers["x-request-id"] not in {offered, second.headers["x-request-id"]}
    assert first.json()["meta"]["requestId"] == first.headers["x-request-id"]


async def test_an_error_has_a_code_and_names_the_field(member: ApiUser) -> None:
    response = await member.request("POST", "/chats", json={"title": ""})

    body = response.json()
    assert response.status_code == 400
    assert set(body) == {"error", "meta"}
    assert set(body["error"]) == {"code", "message", "details", "retryable"}
    assert body["error"]["code"] == "VALIDATION_ERROR"
    assert [set(problem) for problem in body["error"]["details"]] == [{"path", "message"}]
    assert body["error"]["details"][0]["path"] == "body.title"
    assert body["meta"]["requestId"] == response.headers["x-request-id"]


async def test_a_missing_token_is_answered_with_the_way_to_send_one(
    recorded: httpx.AsyncClient,
) -> None:
    response = await recorded.get("/auth/me")

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_documentation_loads_nothing_external(stack: Stack, page: str) -> None:
    async with httpx.AsyncClient(base_url=stack.origin, trust_env=False) as client:
        html = (await client.get(page)).text
        scripts = re.findall(r'(?:src|href)="([^"]+)"', html)
        answers = [await client.get(script) for script in scripts]

    assert len(scripts) >= 2
    assert [answer.status_code for answer in answers] == [200] * len(scripts)
    assert "http" not in "".join(scripts)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
async def without_database(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API whose database is unavailable."""
    url = SecretStr(f"postgresql://everturn:x@127.0.0.1:{closed_port()}/everturn")
    settings = stack.settings.model_copy(update={"database_url": url})
    async with (
        open_foundation(settings) as foundation,
        open_api_services(foundation, stack.temporal, eager=False) as services,
        serving(create_app(services, max_body_bytes=settings.max_body_bytes)) as origin,
        api_client(origin) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("POST /auth/login", {"email": "a@example.com", "password": PASSWORD}),
        ("POST /auth/refresh", {"refreshToken": "x"}),
        ("GET /auth/me", None),
        ("GET /chats", None),
        ("POST /chats", {"title": "Rome"}),
        ("POST /chats/0190b5a8-0000-7000-8000-000000000000/messages", {"content": "Hi"}),
        ("GET /turns/0190b5a8-0000-7000-8000-000000000000", None),
        ("GET /turns/0190b5a8-0000-7000-8000-000000000000/events", None),
    ],
)
async def test_without_its_database_the_api_asks_to_try_again(
    without_database: httpx.AsyncClient, member: ApiUser, route: str, body: dict[str, str] | None
) -> None:
    method, path = route.split()
    response = await without_database.request(method, path, json=body, headers=member.headers)

    assert response.status_code == 503, response.text
    assert response.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
    assert response.json()["error"]["retryable"] is True
    assert int(response.headers["retry-after"]) > 0


async def test_without_its_database_the_api_is_alive_but_not_ready(
    without_database: httpx.AsyncClient,
) -> None:
    live = await without_database.get("/health/live")
    ready = await without_database.get("/health/ready")

    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["data"] == {
        "status": "unavailable",
        "database": "unavailable",
        "redis": "ok",
        "temporal": "ok",
        "problems": ["The database can't be reached."],
    }
