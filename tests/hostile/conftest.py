"""One running Everturn for all attacks of this folder, with others who chat meanwhile.

Each attack is a test of its own: it drives `everturn` from outside, over the wire, a socket or a
process, and shows by `others` what the rest noticed. The suite ends with a table of that.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from tests.running_everturn.bystanders import Bystanders, Noticed, Others
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack, scripted_model, scripted_stack

SETTINGS: Final = {
    # Where the webhooks and MCP servers of tests are.
    "EVERTURN_ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
    "EVERTURN_ACCOUNT_CACHE_S": "0",
    "EVERTURN_HEAD_TIMEOUT_S": "3",
    "EVERTURN_BODY_TIMEOUT_S": "3",
    "EVERTURN_MODEL_ANSWER_TIMEOUT_S": "8",
    "EVERTURN_MCP_MEMORY_MB": "200",
    "EVERTURN_MCP_PROCESSES": "40",
    "EVERTURN_MODEL_ATTEMPTS": "2",
    "EVERTURN_SHUTDOWN_GRACE_S": "1",
    "EVERTURN_SWEEP_INTERVAL_S": "2",
}
"""Bounds that are minutes by default are seconds here, so that a test can wait for them."""

_LAST: Final = "test_memory.py"
_NOTICED: Final = "noticed"


@pytest.fixture(scope="session")
async def shared_stack() -> AsyncIterator[ScriptedStack]:
    async with (
        scripted_model() as (model, url),
        scripted_stack(model, url, settings=SETTINGS) as scripted,
    ):
        yield scripted


@pytest.fixture(scope="session")
async def bystanders(shared_stack: ScriptedStack) -> AsyncIterator[Bystanders]:
    async with Bystanders.of(shared_stack) as bystanders:
        yield bystanders


@pytest.fixture
async def everturn(shared_stack: ScriptedStack) -> AsyncIterator[ScriptedStack]:
    yield shared_stack
    shared_stack.model.clear_scripts()


@pytest.fixture
async def client(everturn: ScriptedStack) -> AsyncIterator[Client]:
    async with Client.signed_up(everturn.api) as client:
        yield client


@pytest.fixture
async def admin(everturn: ScriptedStack, client: Client) -> AsyncIterator[Client]:
    """An administrator, whose servers and webhooks are removed after the test."""
    await everturn.query(
        "UPDATE users SET role = 'admin' WHERE email = $1 RETURNING id", client.email
    )
    yield client
    await everturn.query("DELETE FROM workflow_tools RETURNING name")
    await everturn.query("DELETE FROM mcp_servers RETURNING name")


@pytest.fixture
def others(bystanders: Bystanders, record_property: Callable[[str, object], None]) -> Others:
    """Return `others("the attack")`: ordinary users, who go on while the block runs.

    It fails where one of their requests does.
    """

    @asynccontextmanager
    async def during(attack: str) -> AsyncIterator[None]:
        async with bystanders.during(attack) as noticed:
            yield
        for row in (bystanders.before, *noticed):
            record_property(_NOTICED, row.as_dict())

    return during


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at the memory when all attacks are over."""
    items.sort(key=lambda item: item.path.name == _LAST)


def pytest_terminal_summary(terminalreporter: Any) -> None:  # noqa: ANN401 -- pytest exports no type for it
    """Print what others noticed during each attack."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
    ]
    rows = {
        value["attack"]: Noticed(**value)
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _NOTICED
    }
    if not rows:
        return
    calm = rows["none"]
    terminalreporter.section("others during each attack, 95th percentile")
    head = ("attack", "rounds", "first token, ms", "", "a read, ms", "", "API, MiB", "workers")
    terminalreporter.write_line("{:<52} {:>6} {:>16} {:>6} {:>10} {:>6} {:>9} {:>8}".format(*head))
    for row in rows.values():
        terminalreporter.write_line(
            f"{row.attack:<52} {row.rounds:>6} {row.first_token_ms:>16.0f} "
            f"{row.first_token_ms / calm.first_token_ms:>5.1f}x {row.read_ms:>10.0f} "
            f"{row.read_ms / calm.read_ms:>5.1f}x {row.api_mib:>9.0f} {row.workers_mib:>8.0f}"
        )
