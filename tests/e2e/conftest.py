"""One `everturn dev` for all tests of this folder, but for those that need their own."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.server import serve
from tests.running_everturn.client import PASSWORD, Client
from tests.running_everturn.model import ModelControl
from tests.running_everturn.process import EverturnDev, everturn_dev

ADMIN_EMAIL = "root@example.com"


@pytest.fixture(scope="session")
def shared_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="everturn-tests-") as folder:
        yield Path(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: pytest closes the folder above it to other users, but the user that root runs
    # Postgres as must be able to traverse it.
    with tempfile.TemporaryDirectory(prefix="everturn-tests-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
async def model_url() -> AsyncIterator[str]:
    async with serve(ScriptedModel()) as url:
        yield url


@pytest.fixture(scope="session")
async def everturn(shared_folder: Path, model_url: str) -> AsyncIterator[EverturnDev]:
    settings = {
        "EVERTURN_ADMIN_EMAIL": ADMIN_EMAIL,
        "EVERTURN_ADMIN_PASSWORD": PASSWORD,
        "ANTHROPIC_API_KEY": "scripted",
        "ANTHROPIC_BASE_URL": model_url,
    }
    async with everturn_dev(shared_folder, ephemeral=True, **settings) as running:
        yield running


@pytest.fixture
async def client(everturn: EverturnDev) -> AsyncIterator[Client]:
    async with Client.signed_up(everturn.addresses["api"]) as client:
        yield client


@pytest.fixture
async def admin(everturn: EverturnDev) -> AsyncIterator[Client]:
    async with Client.signed_in(everturn.addresses["api"], ADMIN_EMAIL) as client:
        yield client


@pytest.fixture
async def model(model_url: str) -> AsyncIterator[ModelControl]:
    async with httpx.AsyncClient(base_url=model_url, trust_env=False) as http:
        yield ModelControl(http)
