"""The contract tests' client: it records which routes were called and checks every response."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Match, Route

from tests.fixtures.api_user import ApiUser
from tests.fixtures.exercised_routes import Operation, RouteGate
from tests.fixtures.stack import Stack, api_client

FOLDER = Path(__file__).parent


class Documented:
    """The routes of an application's OpenAPI document; calls are reported to the gate."""

    def __init__(self, app: FastAPI, gate: RouteGate) -> None:
        self.paths: dict[str, Any] = app.openapi()["paths"]
        self._routes = [
            (method, path, Route(path, _nothing, methods=[method]))
            for method, path in sorted(self.operations)
        ]
        self._gate = gate
        gate.documented = self.operations

    @property
    def operations(self) -> set[Operation]:
        """All methods and paths, e.g. `("GET", "/api/v1/chats/{chat_id}")`."""
        return {(method.upper(), path) for path, of in self.paths.items() for method in of}

    def operation_of(self, method: str, path: str) -> Operation | None:
        """Return the route that handles a request."""
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        for candidate_method, template, route in self._routes:
            if candidate_method == method and route.matches(scope)[0] is Match.FULL:
                return candidate_method, template
        return None

    async def check(self, response: httpx.Response) -> None:
        """Record the route, and assert that the response is a documented one."""
        request = response.request
        operation = self.operation_of(request.method, request.url.path)
        if operation is None:
            return
        self._gate.exercised.add(operation)
        method, path = operation
        documented = self.paths[path][method.lower()]["responses"]
        assert str(response.status_code) in documented, (operation, response.status_code)
        headers = documented[str(response.status_code)].get("headers", {})
        for name in ("ETag", "Location"):
            assert (name in response.headers) == (name in headers), (operation, name)


def _nothing() -> None:
    """Stand in for an endpoint."""


@pytest.fixture(scope="session")
def documented(stack: Stack, request: pytest.FixtureRequest) -> Documented:
    """The documented routes."""
    gate: RouteGate = request.config.stash[RouteGate.KEY]
    modules = {item.path for item in request.session.items if item.path.parent == FOLDER}
    gate.is_complete = modules == set(FOLDER.glob("test_*.py"))
    return Documented(stack.app, gate)


@pytest.fixture(scope="session")
async def recorded(stack: Stack, documented: Documented) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose requests count as contract tests of their routes."""
    async with api_client(stack.origin) as client:
        client.event_hooks = {"response": [documented.check]}
        yield client


@pytest.fixture
async def member(recorded: httpx.AsyncClient) -> ApiUser:
    """A new user of the recording client."""
    return await ApiUser.sign_up(recorded)
