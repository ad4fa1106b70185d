"""One stack for all tests of this folder; each puts back what it stopped or killed."""

from collections.abc import AsyncIterator

import pytest

from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack, scripted_model, scripted_stack

SERVERS = ("postgres", "valkey", "temporal")
PROCESSES = (*SERVERS, "api", "worker-turns", "worker-tools")
SETTINGS = {
    # Where the webhooks of tests are.
    "EVERTURN_ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
    "EVERTURN_ANSWER_WAIT_S": "1",
    "EVERTURN_LOG_FORMAT": "console",
    "EVERTURN_SHUTDOWN_GRACE_S": "1",
    # What an administrator registers is there from the next request on.
    "EVERTURN_ACCOUNT_CACHE_S": "0",
    "EVERTURN_SWEEP_INTERVAL_S": "2",
    # Crowds race for what they do at the same time.
    "EVERTURN_USER_TURNS_PER_SECOND": "1000",
}


@pytest.fixture(scope="session")
async def shared_stack() -> AsyncIterator[ScriptedStack]:
    async with (
        scripted_model() as (model, url),
        scripted_stack(model, url, settings=SETTINGS) as scripted,
    ):
        yield scripted


@pytest.fixture
async def everturn(shared_stack: ScriptedStack) -> AsyncIterator[ScriptedStack]:
    yield shared_stack
    shared_stack.model.clear_scripts()
    for name in PROCESSES:
        await shared_stack.stack.start(name)


@pytest.fixture
async def client(everturn: ScriptedStack) -> AsyncIterator[Client]:
    async with Client.signed_up(everturn.api) as client:
        yield client
