"""One `everturn dev` for all tests of this folder, but for those that need their own.

With `--url`, the tests that need nothing but an API run against that one instead. They sign up a
user and delete it at the end, or use the account of EVERTURN_EMAIL and EVERTURN_PASSWORD.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.mail_server import MailServer, mail_server
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.server import serve
from tests.fixtures.collector import Collector, running_collector
from tests.running_everturn.client import PASSWORD, Client
from tests.running_everturn.model import ModelControl
from tests.running_everturn.process import EverturnDev, everturn_dev

ADMIN_EMAIL = "root@example.com"
LOCAL = {"collector", "everturn", "everturn_with_wrong_key", "folder", "model", "newcomer"}
"""Fixtures of this machine: processes, files, and a model that follows a script."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.url:
        return
    elsewhere = pytest.mark.skip(reason="needs processes of this machine, not only an address")
    for item in items:
        if LOCAL & set(getattr(item, "fixturenames", ())):
            item.add_marker(elsewhere)


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
async def collector() -> AsyncIterator[Collector]:
    async with running_collector() as collector:
        yield collector


@pytest.fixture(scope="session")
async def mail_box() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


@pytest.fixture(scope="session")
async def everturn(
    shared_folder: Path, model_url: str, collector: Collector, mail_box: MailServer
) -> AsyncIterator[EverturnDev]:
    settings = {
        "EVERTURN_SMTP_HOST": "127.0.0.1",
        "EVERTURN_SMTP_PORT": str(mail_box.port),
        "EVERTURN_SMTP_ENCRYPTION": "none",
        "EVERTURN_MAIL_FROM": "no-reply@example.com",
        "EVERTURN_FRONTEND_URL": "https://app.example.com",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "EVERTURN_ADMIN_EMAIL": ADMIN_EMAIL,
        "EVERTURN_ADMIN_PASSWORD": PASSWORD,
        "ANTHROPIC_API_KEY": "scripted",
        "ANTHROPIC_BASE_URL": model_url,
    }
    async with everturn_dev(shared_folder, ephemeral=True, **settings) as running:
        yield running


@pytest.fixture(scope="session")
def api_url(request: pytest.FixtureRequest) -> str:
    """The API that is tested: that of `--url`, or of an `everturn dev` of our own."""
    url: str | None = request.config.option.url
    if url:
        return url.rstrip("/")
    everturn: EverturnDev = request.getfixturevalue("everturn")
    return str(everturn.addresses["api"])


@pytest.fixture
async def client(api_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    email, password = os.environ.get("EVERTURN_EMAIL"), os.environ.get("EVERTURN_PASSWORD")
    if request.config.option.url and email and password:
        async with Client.signed_in(api_url, email, password) as client:
            yield client
        return
    async with Client.signed_up(api_url) as client:
        yield client
        if request.config.option.url:
            await client.api.users.delete(current_password=PASSWORD)


@pytest.fixture
async def admin(everturn: EverturnDev) -> AsyncIterator[Client]:
    async with Client.signed_in(everturn.addresses["api"], ADMIN_EMAIL) as client:
        yield client


@pytest.fixture
async def model(model_url: str) -> AsyncIterator[ModelControl]:
    async with httpx.AsyncClient(base_url=model_url, trust_env=False) as http:
        yield ModelControl(http)
