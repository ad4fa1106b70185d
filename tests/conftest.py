"""Fixtures for all tests; the servers behind them start with the first test that needs them."""

import pytest

from tests.fixtures.servers import ServerHost, stack_names

pytest_plugins = ["tests.fixtures.stack"]


def pytest_configure(config: pytest.Config) -> None:
    """Offer the servers to this process or, under xdist, to all its workers."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    processes = len(config.getoption("tx", []) or [])
    workers = [f"gw{number}" for number in range(processes)] or ["main"]
    host = ServerHost(stack_names(workers))
    host.start()
    config.add_cleanup(host.stop)
