"""Every route is documented, with its summary, tags and errors.

That contract tests exercise every documented route is checked at the end of the run, over all
processes: tests/fixtures/exercised_routes.py.
"""

import importlib
import pkgutil

import api.routes
from tests.contracts.conftest import Documented


def test_every_operation_is_documented(documented: Documented) -> None:
    for method, path in documented.operations:
        operation = documented.paths[path][method.lower()]
        assert operation["summary"], (method, path)
        assert operation["tags"], (method, path)


def test_no_route_documents_a_status_that_is_never_sent(documented: Documented) -> None:
    for method, path in documented.operations:
        assert "422" not in documented.paths[path][method.lower()]["responses"], (method, path)


def test_no_api_route_is_left_out_of_the_documentation(documented: Documented) -> None:
    routes = [
        route
        for module in pkgutil.walk_packages(api.routes.__path__, "api.routes.")
        if not module.ispkg
        for route in importlib.import_module(module.name).router.routes
    ]

    assert len(routes) == len(documented.operations)
    assert {route.path for route in routes} == set(documented.paths)


def test_errors_are_documented_in_their_one_shape(documented: Documented) -> None:
    for method, path in documented.operations:
        for status, answer in documented.paths[path][method.lower()]["responses"].items():
            if status.startswith(("4", "5")) and "/health/" not in path:
                schema = answer["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("/ErrorResponse"), (method, path, status)
