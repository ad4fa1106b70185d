"""The gate over the routes that contract tests exercise, in one process and in several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.exercised_routes import RouteGate

READ, WRITE = ("GET", "/chats"), ("POST", "/chats")
CONFTEST = """
import pytest
from tests.fixtures.exercised_routes import RouteGate

pytest_plugins = ["tests.fixtures.exercised_routes"]

@pytest.fixture
def gate(request):
    gate = request.config.stash[RouteGate.KEY]
    gate.documented = {("GET", "/chats"), ("POST", "/chats")}
    gate.is_complete = True
    return gate
"""
READING = "def test_read(gate):\n    gate.exercised.add(('GET', '/chats'))\n"
WRITING = "def test_write(gate):\n    gate.exercised.add(('POST', '/chats'))\n"


def test_routes_exercised_in_any_process_count() -> None:
    reader = RouteGate({READ, WRITE}, {READ}, is_complete=True)
    writer = RouteGate({READ, WRITE}, {WRITE}, is_complete=True)
    idle = RouteGate()
    together = RouteGate()

    together.add(idle.report())
    together.add(reader.report())
    before = together.missing
    together.add(writer.report())

    assert before == ["POST /chats"]
    assert together.missing == []


def test_a_run_of_some_contract_tests_is_not_judged() -> None:
    assert RouteGate({READ}, set(), is_complete=False).missing == []


@pytest.mark.parametrize(("second", "exit_code"), [(WRITING, 0), (READING, 1)])
def test_a_run_fails_if_no_process_exercises_a_route(
    tmp_path: Path, second: str, exit_code: int
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_1.py").write_text(READING)
    (tmp_path / "test_2.py").write_text(second)

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist.plugin", "-n", "2", tmp_path],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == exit_code, run.stdout
    assert ("no contract test exercises POST /chats" in run.stdout) is (exit_code == 1)
