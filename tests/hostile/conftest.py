"""One running Everturn for all attacks of this folder, with others who chat meanwhile.

Each attack is a test of its own: it drives `everturn` from outside, over the wire, a socket or a
process, and shows by `others` what the rest noticed. The suite ends with a table of that.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from tests.load.client import Spread, spread
from tests.running_everturn.bystanders import Bystanders, Noticed, Others
from tests.running_everturn.client import Client
from tests.running_everturn.model import RemoteModel
from tests.running_everturn.stack import ScriptedStack, scripted_stack

SETTINGS: Final = {
    # Where the webhooks and MCP servers of tests are.
    "EVERTURN_ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
    "EVERTURN_ACCOUNT_CACHE_S": "0",
    "EVERTURN_HEAD_TIMEOUT_S": "3",
    "EVERTURN_BODY_TIMEOUT_S": "3",
    "EVERTURN_MODEL_ANSWER_TIMEOUT_S": "6",
    "EVERTURN_MCP_MEMORY_MB": "200",
    "EVERTURN_MCP_PROCESSES": "40",
    "EVERTURN_MODEL_ATTEMPTS": "2",
    "EVERTURN_SHUTDOWN_GRACE_S": "1",
    "EVERTURN_SWEEP_INTERVAL_S": "2",
}
"""Bounds that are minutes by default are seconds here, so that a test can wait for them."""

_LAST: Final = "test_afterwards.py"
_BYSTANDERS: Final = pytest.StashKey[Bystanders]()
_QUIET_ROUNDS: Final = 10


@pytest.fixture(scope="session")
async def shared_stack() -> AsyncIterator[ScriptedStack]:
    async with (
        RemoteModel.started() as (model, url),
        scripted_stack(model, url, settings=SETTINGS) as scripted,
    ):
        yield scripted


@pytest.fixture(scope="session")
async def bystanders(
    shared_stack: ScriptedStack, request: pytest.FixtureRequest
) -> AsyncIterator[Bystanders]:
    async with Bystanders.of(shared_stack) as bystanders:
        request.config.stash[_BYSTANDERS] = bystanders
        yield bystanders


@pytest.fixture(scope="module", autouse=True)
async def quiet_rounds(bystanders: Bystanders) -> AsyncIterator[None]:
    """Measure between the modules too: a stack that has worked is slower than a new one."""
    yield
    await bystanders.go_on(_QUIET_ROUNDS)


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
def others(bystanders: Bystanders) -> Others:
    """Return `others("the attack")`: ordinary users, who go on while the block runs.

    It fails where one of their requests does. Attacks of one name share a row of the table.
    """
    return bystanders.during


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Judge when all attacks are over."""
    items.sort(key=lambda item: item.path.name == _LAST)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:  # noqa: ANN401 -- pytest exports no type for it
    """Print what others noticed during each attack."""
    bystanders = config.stash.get(_BYSTANDERS, None)
    if bystanders is None:
        return
    terminalreporter.section("others during each attack, median and 95th percentile in ms")
    line = "{:<42} {:>6} {:>11} {:>11} {:>9} {:>11} {:>8} {:>8}"
    head = ("attack", "rounds", "first token", "", "a read", "", "API, MiB", "workers")
    terminalreporter.write_line(line.format(*head))
    for attack, row in bystanders.noticed.items():
        if len(row.first_tokens) > 1:
            calm = bystanders.calm_beside(row)
            cells = (
                *_cells(row.first_tokens, spread(calm.first_tokens)),
                *_cells(row.reads, spread(calm.reads)),
            )
            sizes = (f"{row.api_mib:.0f}", f"{row.workers_mib:.0f}")
            terminalreporter.write_line(line.format(attack, len(row.first_tokens), *cells, *sizes))
    calm = Noticed.joined(bystanders.quiet)
    cells = (*_cells(calm.first_tokens), *_cells(calm.reads))
    terminalreporter.write_line(line.format("none", len(calm.first_tokens), *cells, "", ""))


def _cells(milliseconds: list[float], calm: Spread | None = None) -> tuple[str, str]:
    seen = spread(milliseconds)
    times = "" if calm is None else f"{seen.p50 / calm.p50:.1f}x {seen.p95 / calm.p95:.1f}x"
    return f"{seen.p50:.0f} {seen.p95:.0f}", times
