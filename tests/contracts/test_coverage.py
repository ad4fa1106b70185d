"""Every documented route has a contract test, and every route is documented."""

import pytest
from fastapi.routing import APIRoute

from tests.contracts.conftest import Documented
from tests.fixtures.stack import Stack


@pytest.mark.usefixtures("whole_folder")
def test_every_route_is_exercised(documented: Documented) -> None:
    assert documented.operations - documented.asked == set()


def test_every_operation_says_what_it_is(documented: Documented) -> None:
    for method, path in documented.operations:
        operation = documented.paths[path][method.lower()]
        assert operation["summary"], (method, path)
        assert operation["tags"], (method, path)


def test_no_route_documents_a_status_that_is_never_sent(documented: Documented) -> None:
    for method, path in documented.operations:
        assert "422" not in documented.paths[path][method.lower()]["responses"], (method, path)


def test_no_api_route_is_left_out_of_the_documentation(
    stack: Stack, documented: Documented
) -> None:
    hidden = [
        route.path
        for route in stack.app.routes
        if isinstance(route, APIRoute) and route.path not in documented.paths
    ]
    assert hidden == []


def test_errors_are_documented_in_their_one_shape(documented: Documented) -> None:
    for method, path in documented.operations:
        for status, answer in documented.paths[path][method.lower()]["responses"].items():
            if status.startswith(("4", "5")) and "/health/" not in path:
                schema = answer["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("/ErrorEnvelope"), (method, path, status)
