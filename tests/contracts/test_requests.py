"""What holds for requests to every route: known query parameters only; the root for newcomers."""

import re

import httpx
import pytest

from api.app import create_app
from tests.contracts.conftest import Documented
from tests.fixtures.api_user import ApiUser
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack

TEMPORAL_UI = "http://127.0.0.1:8233"


async def test_every_route_refuses_an_unknown_query_parameter(
    documented: Documented, stack: Stack, admin: ApiUser
) -> None:
    async with httpx.AsyncClient(base_url=stack.origin, trust_env=False) as client:
        for method, path in sorted(documented.operations):
            if path.startswith(("/api/v1/auth/", "/api/v1/tool-callbacks/")):
                continue  # limited by address: see below
            example = re.sub(r"\{[^}]+\}", "0190b5a8-0000-7000-8000-000000000000", path)
            response = await client.request(
                method, example, params={"limits": "5"}, headers=admin.headers
            )
            assert response.status_code == 400, (method, path, response.text)
            error = response.json()["error"]
            assert error["code"] == "VALIDATION_ERROR"
            assert {"path": "query.limits", "message": "Unknown query parameter."} in error[
                "details"
            ], (method, path)


async def test_public_routes_refuse_an_unknown_query_parameter(recorded: httpx.AsyncClient) -> None:
    response = await recorded.post("/auth/logout?all=1", json={"refreshToken": "x"})

    assert response.status_code == 400
    assert response.json()["error"]["details"] == [
        {"path": "query.all", "message": "Unknown query parameter."}
    ]


async def test_filters_sorts_and_pages_are_known_parameters(member: ApiUser) -> None:
    response = await member.request(
        "GET", "/chats", params={"archived": "any", "search": "a", "sort": "title", "limit": 5}
    )

    assert response.status_code == 200, response.text


async def test_a_missing_token_is_reported_before_an_unknown_parameter(
    recorded: httpx.AsyncClient,
) -> None:
    assert (await recorded.get("/chats", params={"limits": "5"})).status_code == 401


async def test_head_takes_the_parameters_of_get(member: ApiUser) -> None:
    assert (await member.request("HEAD", "/chats", params={"limit": 1})).status_code == 200
    assert (await member.request("HEAD", "/chats", params={"limits": 1})).status_code == 400


@pytest.mark.parametrize("temporal_ui", [None, TEMPORAL_UI])
async def test_the_root_links_to_the_starting_points(
    stack: Stack, documented: Documented, temporal_ui: str | None
) -> None:
    app = create_app(stack.services, max_body_bytes=10_000, temporal_ui_url=temporal_ui)
    async with (
        serving(app) as origin,
        httpx.AsyncClient(base_url=origin, trust_env=False) as client,
    ):
        response = await client.get("/")
        page = await client.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
        await documented.check(response)
        links = response.json()["data"]
        assert links.pop("name") == "Everturn"
        assert links.pop("temporalUi") == temporal_ui
        assert [(await client.get(link)).status_code for link in links.values()] == [200] * 3

    addresses = [*links.values(), *([] if temporal_ui is None else [temporal_ui])]
    assert re.findall(r'href="([^"]+)"', page.text) == addresses
    assert page.headers["content-type"].startswith("text/html")


async def test_metrics_are_not_served_to_clients_of_the_api(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.origin, trust_env=False) as client:
        assert (await client.get("/metrics")).status_code == 404
