"""docs/installation.md, run literally against stock servers: from nothing to a first answer."""

import asyncio
import os
import re
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.bare_servers import BareServers
from tests.running_everturn.process import OURS
from tests.running_everturn.stack import scripted_model
from workers.embedded.ports import is_free
from workers.embedded.postgres import programs

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "installation.md").read_text()
ANSWER: Final = "Six times seven is 42."


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def with_values(block: str, values: Mapping[str, object]) -> str:
    """Return the block of the page that a reader edits, edited. Each of its lines must be."""
    assert re.findall(r"^(\w+)=", block, re.MULTILINE) == list(values)
    for name, value in values.items():
        block = re.sub(rf"^{name}=.*$", f"{name}='{value}'", block, flags=re.MULTILINE)
    return block


def free_ports(count: int) -> int:
    """Return the first of `count` ports in a row on which nothing listens."""
    while True:
        first = 20_000 + secrets.randbelow(12_000)
        if all(map(is_free, range(first, first + count))):
            return first


@contextmanager
def no_settings() -> Iterator[dict[str, str]]:
    """Return the environment without settings of Everturn, but with Postgres's own client."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    # Five processes would compile all that they import, each for itself.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    path = f"{os.environ['PATH']}{os.pathsep}{programs()}"
    yield inherited | {"PATH": path, "NO_PROXY": "127.0.0.1"}


async def run_page(script: str, log: Path) -> int:
    """Run the page in one shell; the processes that it left running are ended with it."""
    with no_settings() as environment, log.open("wb") as output:
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            return await shell.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


@pytest.mark.timeout(300)
async def test_the_page_leads_from_empty_servers_to_an_answer(tmp_path: Path) -> None:
    home, port, metrics = tmp_path / "everturn", free_ports(1), free_ports(4)
    first, *others = blocks("sh")
    async with BareServers() as servers, scripted_model() as (model, model_url):
        model.add(Script(match="6 * 7", text=ANSWER, repeat=10))
        database = urlsplit(servers.addresses.migration_database)
        values = {
            "postgres": database._replace(path="").geturl(),
            "redis": servers.addresses.redis,
            "temporal": servers.addresses.temporal,
            "namespace": "everturn",
            "anthropic_key": "a key",
            "anthropic_url": model_url,
            "admin_email": "admin@example.com",
            "admin_password": "correct horse battery staple",
            "home": home,
            "port": port,
            "metrics": metrics,
        }
        script = "\n".join([with_values(first, values), *others])

        exit_code = await run_page(script, tmp_path / "page.log")

    said = (tmp_path / "page.log").read_text()
    logs = "\n".join(log.read_text() for log in home.glob("etc/*.log"))
    assert exit_code == 0, f"{said}\n{logs}"
    assert '"status":"ok"' in said
    assert ANSWER in "".join(re.findall(r'"text":"([^"]*)"', said))
    assert "event: done" in said
    assert (home / "etc" / ".env").stat().st_mode & 0o077 == 0


def test_the_scrape_example_is_yaml_and_names_the_ports_of_the_page() -> None:
    [example] = blocks("yaml")

    targets = [
        target
        for job in YAML(typ="safe").load(example)["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]

    first = int(re.findall(r"^metrics=(\d+)$", PAGE, re.MULTILINE)[0])
    assert targets == [f"127.0.0.1:{first + number}" for number in range(4)]
