"""Fixtures for all tests; the servers behind them start with the first test that needs them."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:  # noqa: ANN401 -- xdist's own type is private
    """Spread tests over the workers one by one, but for those that are looked at together."""
    return ContractsTogether(config, log)


class ContractsTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives all contract tests to one worker, which can then say what none of them asked for.

    xdist's own groups are a suffix that it sets on the ids of tests; since pytest 9.2 these can't
    be set any more, and the marker `xdist_group` does nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "contracts" if nodeid.startswith("tests/contracts/") else nodeid
