"""The client and OpenAPI name the same operations."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from everturn_client import account, admin, admin_content, admin_tools, chats, files, knowledge
from everturn_client.calls import Call
from everturn_client.endpoints import Endpoint, Listing
from everturn_client.following import Following

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"
VALUES: Final[dict[str, object]] = {
    "preferences": {},
    "tool_input": {},
    "input_schema": {},
    "number": 1,
    "file": b"x",
    "decision": "approve",
}
# Operators probe the health, servers of webhooks call back, and the client refreshes by itself.
NOT_FOR_CLIENTS = {"/api/v1/health/live", "/api/v1/health/ready", "/api/v1/auth/refresh"}
CALLBACKS = "/api/v1/tool-callbacks/"


def calls() -> Iterator[Call[Any]]:
    """Yield the call of each method of each group."""
    for module in (account, admin, admin_content, admin_tools, chats, files, knowledge):
        for _, group in inspect.getmembers(module, inspect.isclass):
            if group.__module__ == module.__name__:
                for method in vars(group).values():
                    if isinstance(method, Endpoint | Following | Listing):
                        yield call_of(method.build)


def call_of(build: Any) -> Call[Any]:  # noqa: ANN401 -- any method
    _, *parameters = inspect.signature(build).parameters.values()
    needed = [each for each in parameters if each.default is each.empty and each.kind < 4]
    positional = [VALUES.get(each.name, "x") for each in needed if each.kind <= 1]
    named = {each.name: VALUES.get(each.name, "x") for each in needed if each.kind > 1}
    built = build(None, *positional, **named)
    return built if isinstance(built, Call) else built.call


def operations() -> set[tuple[str, str]]:
    """Return the method and the path of each operation, without its parameters."""
    paths = json.loads(OPENAPI.read_text())["paths"]
    return {
        (method.upper(), re.sub(r"\{\w+\}", "*", path))
        for path, methods in paths.items()
        if path.startswith("/api/v1/")
        and path not in NOT_FOR_CLIENTS
        and not path.startswith(CALLBACKS)
        for method in methods
        if method != "parameters"
    }


def matching(call: Call[Any]) -> tuple[str, str]:
    """Return the operation that a call is, or the call where there is none."""
    for method, path in operations():
        pattern = re.escape(f"{path}").replace(r"\*", "[^/]+")
        if method == call.method and re.fullmatch(pattern, f"/api/v1{call.path}"):
            return method, path
    return call.method, call.path


def test_every_operation_has_a_method_and_every_method_an_operation() -> None:
    assert {matching(call) for call in calls()} == operations()
