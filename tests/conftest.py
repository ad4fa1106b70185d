"""Fixtures for all tests, loaded and started with the first test that needs them."""

import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.fixtures.scheduling import GroupScheduling
from tests.fixtures.servers import ServerHost, stack_names
from workers.startup import pause_collection, resume_collection

# As in processes of Everturn: what is imported and collected stays to the end of the run.
pause_collection()

pytest_plugins = ["tests.fixtures.exercised_routes"]

STACK_FIXTURES = (
    "tests.fixtures.stack",
    "tests.fixtures.actors",
    "tests.fixtures.budgets",
    "tests.fixtures.due_works",
    "tests.fixtures.memories",
    "tests.fixtures.learning",
    "tests.fixtures.mcp",
    "tests.fixtures.trusted_issuers",
)
UNIT_TESTS = Path(__file__).parent / "unit"

TRACED = frozenset(
    ("integration", f"test_{name}.py")
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
"""The integration tests that are measured for coverage, beside all tests of `TRACED_FOLDERS`.

Tracing makes a test half as expensive again, and these reach what the gates ask for; what the
others reach as well is not counted.
"""

TRACED_FOLDERS = frozenset(("unit", "contracts", "replay"))

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


# How long an example takes says more about the other tests that run than about this one.
settings.register_profile(
    "busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")


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
    """Measure coverage only in the tests that the gates count."""
    resume_collection()
    for item in items:
        folder, name = item.path.parent.name, item.path.name
        if folder not in TRACED_FOLDERS and (folder, name) not in TRACED:
            item.add_marker("no_cover")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:  # noqa: ANN401 -- xdist's own type is private
    """Distribute tests over the workers one by one, except those that belong together."""
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)
