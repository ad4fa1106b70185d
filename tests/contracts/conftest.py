"""The contract tests' client: it remembers which routes were asked, and checks every answer."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Match, Route

from tests.fixtures.api_user import ApiUser
from tests.fixtures.stack import Stack, api_client

FOLDER = Path(__file__).parent
LAST = "test_every_route_is_exercised"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the test that looks at all contract tests behind them."""
    last = [item for item in items if item.name == LAST]
    items[:] = [item for item in items if item not in last] + last


class Documented:
    """The routes of an application's OpenAPI document, and which of them were asked."""

    def __init__(self, app: FastAPI) -> None:
        self.paths: dict[str, Any] = app.openapi()["paths"]
        self.asked: set[tuple[str, str]] = set()

    @property
    def operations(self) -> set[tuple[str, str]]:
        """All methods and paths, as `("GET", "/api/v1/chats/{chat_id}")`."""
        return {(method.upper(), path) for path, of in self.paths.items() for method in of}

    def operation_of(self, method: str, path: str) -> tuple[str, str] | None:
        """Return the route that answers a request."""
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        for candidate_method, template in sorted(self.operations):
            route = Route(template, _nothing, methods=[candidate_method])
            if candidate_method == method and route.matches(scope)[0] is Match.FULL:
                return candidate_method, template
        return None

    async def check(self, response: httpx.Response) -> None:
        """Note the route, and assert that its answer is one of those documented."""
        request = response.request
        operation = self.operation_of(request.method, request.url.path)
        if operation is None:
            return
        self.asked.add(operation)
        method, path = operation
        documented = self.paths[path][method.lower()]["responses"]
        assert str(response.status_code) in documented, (operation, response.status_code)
        headers = documented[str(response.status_code)].get("headers", {})
        for name in ("ETag", "Location"):
            assert (name in response.headers) == (name in headers), (operation, name)


def _nothing() -> None:
    """Stand in for an endpoint."""


@pytest.fixture(scope="session")
def documented(stack: Stack) -> Documented:
    """The documented routes."""
    return Documented(stack.app)


@pytest.fixture(scope="session")
async def recorded(stack: Stack, documented: Documented) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose every request counts as a contract test of its route."""
    async with api_client(stack.origin) as client:
        client.event_hooks = {"response": [documented.check]}
        yield client


@pytest.fixture
async def member(recorded: httpx.AsyncClient) -> ApiUser:
    """A new user who speaks through the recording client."""
    return await ApiUser.sign_up(recorded)


@pytest.fixture
def whole_folder(request: pytest.FixtureRequest) -> None:
    """Skip where not all contract tests run, since they are looked at together."""
    collected = {item.path for item in request.session.items}
    if not set(FOLDER.glob("test_*.py")) <= collected or request.config.option.keyword:
        pytest.skip("needs all contract tests in one run")
