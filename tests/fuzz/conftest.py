"""Runs each fuzz test once for each operation that the application describes, or of one kind."""

import asyncio
import os
from collections.abc import Callable
from typing import Final

import pytest

from tests.fixtures.stack import Stack
from tests.fuzz.accounts import Accounts
from tests.fuzz.operations import Operation, operations
from tests.fuzz.things import parameters_of

EXAMPLES_VARIABLE: Final = "EVERTURN_FUZZ_EXAMPLES"
_EXAMPLES: Final = 2

_KINDS: Final[dict[str, Callable[[Operation], object]]] = {
    "operation": lambda _: True,
    "secured_operation": lambda operation: operation.is_secured,
    "operation_of_administrators": lambda operation: operation.is_for_administrators,
    "operation_with_fields": lambda operation: operation.fields,
    "operation_with_ids": lambda operation: parameters_of(operation.path),
}
"""What tests ask for, by the name of the argument."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests the operations of the kind that they ask for."""
    for name, is_wanted in _KINDS.items():
        if name in metafunc.fixturenames:
            wanted = [operation for operation in operations() if is_wanted(operation)]
            metafunc.parametrize(name, wanted, ids=str)


@pytest.fixture(scope="session")
def examples() -> int:
    """The number of requests generated for each account and operation."""
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
