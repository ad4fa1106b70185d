"""Runs each fuzz test once for each operation that the application describes."""

import asyncio
import os
from typing import Final

import pytest

from tests.fixtures.stack import Stack
from tests.fuzz.accounts import Accounts
from tests.fuzz.operations import operations

EXAMPLES_VARIABLE: Final = "EVERTURN_FUZZ_EXAMPLES"
_EXAMPLES: Final = 6


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that ask for `operation` all operations."""
    if "operation" in metafunc.fixturenames:
        metafunc.parametrize("operation", operations(), ids=str)


@pytest.fixture(scope="session")
def examples() -> int:
    """How many requests each account makes up for each operation."""
    return int(os.environ.get(EXAMPLES_VARIABLE, _EXAMPLES))


@pytest.fixture(scope="session")
def share(examples: int) -> int:
    """How many of the requests by hand each operation gets, of each kind."""
    return examples // 2


@pytest.fixture(scope="session")
async def accounts(stack: Stack) -> Accounts:
    """The accounts on this process's stack."""
    loop = asyncio.get_running_loop()

    def promote(email: str) -> None:
        statement = "UPDATE users SET role = 'admin' WHERE email = $1"
        promoting = stack.inspection.execute(statement, email)
        asyncio.run_coroutine_threadsafe(promoting, loop).result(timeout=10)

    return Accounts(stack.origin, promote)
