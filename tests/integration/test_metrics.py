"""The API's metrics: their names and labels, and values that must not become labels."""

import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from api.app import create_app
from services.settings import Settings
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client
from workers.metrics import ProcessHealth, serving_metrics

PREFIX = "/api/v1"


class Measured:
    """An API of its own, and what it says that it has counted."""

    def __init__(self, app: FastAPI, origin: str, http: httpx.AsyncClient) -> None:
        self.app = app
        self.origin = origin
        self.http = http

    def scrape(self) -> str:
        return generate_latest(self.app.state.metrics.registry).decode()

    def value(self, name: str, **labels: str) -> float:
        """Return a sample's value, or 0 where there is none."""
        families = text_string_to_metric_families(self.scrape())
        samples = [sample for family in families for sample in family.samples]
        found = [s.value for s in samples if s.name == name and s.labels == labels]
        return found[0] if found else 0


@pytest.fixture
async def measured(stack: Stack) -> AsyncIterator[Measured]:
    app = create_app(stack.services, max_body_bytes=stack.settings.max_body_bytes)
    async with serving(app) as origin, api_client(origin) as http:
        yield Measured(app, origin, http)


@pytest.fixture
def measured_user(measured: Measured, user: ApiUser) -> ApiUser:
    return ApiUser(measured.http, user.session, email=user.email)


async def test_a_process_serves_its_metrics_on_a_port_of_their_own(
    measured: Measured, settings: Settings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = settings.model_copy(update={"metrics_port": port})
    registry = measured.app.state.metrics.registry
    with serving_metrics(own, registry, health=ProcessHealth()):
        response = await measured.http.get(f"http://127.0.0.1:{port}/metrics")

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(response.text)}
    assert {
        "everturn_http_connections_open",
        "everturn_http_requests",
        "everturn_rate_limiter_degraded",
    } <= names


@pytest.mark.parametrize(
    ("path", "counted"),
    [
        ("/auth/me", ("/auth/me", "2xx")),
        ("/chats/0190b5a8-0000-7000-8000-000000000000", ("/chats/{chat_id}", "4xx")),
        ("/auth/login", ("/auth/login", "4xx")),
    ],
)
async def test_requests_are_counted_by_the_template_of_their_route(
    measured: Measured, measured_user: ApiUser, path: str, counted: tuple[str, str]
) -> None:
    route, status = counted
    labels = {"method": "GET", "route": f"{PREFIX}{route}", "status": status}
    await measured_user.request("GET", path)
    await measured_user.request("GET", path)

    assert measured.value("everturn_http_requests_total", **labels) == 2
    assert measured.value("everturn_http_request_duration_seconds_count", **labels) == 2
    assert measured.value("everturn_http_request_duration_seconds_sum", **labels) > 0


async def test_a_route_has_few_series(measured: Measured, measured_user: ApiUser) -> None:
    await measured_user.request("GET", "/auth/me")

    text = measured.scrape()

    assert sum(f'"{PREFIX}/auth/me"' in line for line in text.splitlines()) <= 12
    assert "_created" not in text


async def test_searches_without_vectors_are_among_the_metrics(measured: Measured) -> None:
    assert "everturn_knowledge_searches_without_vectors_total" in measured.scrape()


async def test_paths_and_methods_invented_by_clients_do_not_become_labels(
    measured: Measured,
) -> None:
    await measured.http.get(f"{measured.origin}/{unique('nowhere')}")
    await measured.http.request("PROPFIND", "/chats")
    text = measured.scrape()

    unmatched = {"method": "GET", "route": "unmatched", "status": "4xx"}
    assert measured.value("everturn_http_requests_total", **unmatched) == 1
    assert "nowhere" not in text
    assert "PROPFIND" not in text
    assert 'method="other"' in text


async def test_a_defect_is_counted_as_a_failure(stack: Stack) -> None:
    app = create_app(stack.services, max_body_bytes=stack.settings.max_body_bytes)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a defect")

    async with serving(app) as origin, api_client(origin) as http:
        measured = Measured(app, origin, http)
        with capture_logs():
            await http.get(f"{origin}/broken")

        labels = {"method": "GET", "route": "/broken", "status": "5xx"}
        assert measured.value("everturn_http_requests_total", **labels) == 1
        assert measured.value("everturn_http_requests_in_flight") == 0


async def test_open_streams_are_counted_while_they_are_open(
    measured: Measured, measured_user: ApiUser
) -> None:
    chat_id = await measured_user.create_chat()
    async with measured_user.stream(chat_id, unique()) as stream:
        during = measured.value("everturn_event_streams_open")
        await stream.all()
    after = measured.value("everturn_event_streams_open")

    assert (during, after) == (1, 0)


async def test_applications_in_one_process_count_separately(
    measured: Measured, stack: Stack
) -> None:
    name = "everturn_http_requests_total"
    labels = {"method": "GET", "route": f"{PREFIX}/health/live", "status": "2xx"}
    there = Measured(stack.app, stack.origin, measured.http)
    before = there.value(name, **labels)

    await measured.http.get("/health/live")

    assert measured.value(name, **labels) == 1
    assert there.value(name, **labels) == before
