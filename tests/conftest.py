"""Fixtures for all tests, loaded and started with the first test that needs them."""

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.fixtures.servers import ServerHost, stack_names
from workers.startup import pause_collection, resume_collection

# As in processes of Everturn: what is imported and collected stays to the end of the run.
pause_collection()

pytest_plugins = ["tests.fixtures.exercised_routes"]

STACK_FIXTURES = (
    "tests.fixtures.stack",
    "tests.fixtures.actors",
    "tests.fixtures.budgets",
    "tests.fixtures.memories",
    "tests.fixtures.learning",
    "tests.fixtures.mcp",
    "tests.fixtures.trusted_issuers",
)
UNIT_TESTS = Path(__file__).parent / "unit"
INTEGRATION_TESTS = Path(__file__).parent / "integration"

TRACED = frozenset(
    f"test_{name}.py"
    for name in (
        *("account_mail", "account_mail_delivery", "mail_transport"),
        *("administration_commands", "alert_delivery", "api_keys", "auth", "budgets_of_tools"),
        *("attachments", "contexts", "files", "files_in_s3", "issuers"),
        *("knowledge_ingestion", "knowledge_publication"),
        *("mcp_calls", "mcp_oauth", "mcp_servers", "memories", "memory_extraction"),
        *("regeneration", "streams", "sweep", "tool_execution", "turn_failures", "turns"),
        *("user_events", "workflow_tool_callbacks"),
    )
)
"""The integration tests that are measured for coverage, beside all of unit and contract tests.

Tracing makes a test half as expensive again, and these reach what the gates ask for; what the
others reach as well is not counted.
"""

pytest.register_assert_rewrite(*STACK_FIXTURES)

# structlog's default tracebacks with all local values take seconds each. The original stream, since
# a test that reads its own output would find what workers in the same process log meanwhile.
structlog.configure(
    logger_factory=structlog.PrintLoggerFactory(sys.__stderr__),
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ],
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests/e2e run against an Everturn that is deployed somewhere."""
    parser.addoption("--url", help="the address of an Everturn, e.g. https://chat.example.com")


def pytest_configure(config: pytest.Config) -> None:
    """Offer the servers to this process or, with xdist, to all its workers."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    processes = len(config.getoption("tx", []) or [])
    if processes:
        # This process collects no tests.
        resume_collection()
    workers = [f"gw{number}" for number in range(processes)] or ["main"]
    host = ServerHost(stack_names(workers))
    host.start()
    config.add_cleanup(host.stop)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Load the stack's fixtures with the first test outside tests/unit: they import everything."""
    if isinstance(collector, pytest.Module) and UNIT_TESTS not in collector.path.parents:
        for module in STACK_FIXTURES:
            collector.config.pluginmanager.import_plugin(module)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure no coverage in integration tests that are not in `TRACED`."""
    resume_collection()
    for item in items:
        if item.path.parent == INTEGRATION_TESTS and item.path.name not in TRACED:
            item.add_marker("no_cover")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:  # noqa: ANN401 -- xdist's own type is private
    """Distribute tests over the workers one by one, except those that belong together."""
    return GroupScheduling(config, log)


TOGETHER = (
    # They insert thousands of rows, once.
    "tests/nightly/test_query_plans.py",
    "tests/nightly/test_knowledge_search_recall.py",
    # They start servers on Temporal's default ports.
    "tests/integration/test_embedded_stack.py",
    # They share a stack that sends mail.
    "tests/integration/test_account_mail",
    # They share a proxy each.
    "tests/integration/test_proxies.py",
    # They share one running Everturn each. Chaos starts so many processes that more than two groups
    # of it would wait for the cores, and time out.
    "tests/e2e/",
    "tests/hostile/",
    "tests/chaos/test_[dgst]",
    "tests/chaos/",
)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Assigns each group of `TOGETHER` to one worker.

    xdist's own groups are a suffix on test IDs, which pytest 9.2 made read-only, so its marker
    `xdist_group` has no effect.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((group for group in TOGETHER if fnmatchcase(nodeid, f"{group}*")), nodeid)
