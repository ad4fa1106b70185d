"""The fork server: what it launches behaves as if each command had been started by itself."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.running_everturn.process import environment
from workers.embedded.child import Child
from workers.embedded.fork_server import EVERTURN, ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server runs on Linux")

FORK_TWICE = """
import os, random, secrets
from workers.embedded.fork_server import import_application
[*import_application()]
from schema.ids import new_id
for _ in range(2):
    if os.fork() == 0:
        print(new_id(), secrets.token_hex(), random.random())
        break
    os.wait()
"""


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ForkServer]:
    server = ForkServer()
    yield server
    await server.close()


async def launch(
    server: ForkServer, folder: Path, *arguments: str, waits: bool = False, **settings: str
) -> Child:
    with (folder / "output").open("w") as output:
        return await server.launch(
            (*EVERTURN, *arguments),
            output=output.fileno(),
            env=environment(**settings),
            cwd=folder,
            awaits_start_signal=waits,
        )


def parent_of(child: Child) -> psutil.Process:
    parent = psutil.Process(child.pid).parent()
    assert parent is not None
    return parent


async def test_a_command_has_its_arguments_environment_folder_output_and_exit_code(
    server: ForkServer, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("EVERTURN_API_PORT=123456\n")

    refused = await launch(server, tmp_path, "worker", "--queue", "none")
    assert await refused.wait() == 2
    assert "unknown queue: none" in (tmp_path / "output").read_text()

    out_of_range = await launch(server, tmp_path, "api")
    assert await out_of_range.wait() == 1
    assert "EVERTURN_API_PORT" in (tmp_path / "output").read_text()

    url = "postgresql://everturn@127.0.0.1:1/everturn"
    without_database = await launch(
        server, tmp_path, "migrate", DATABASE_URL=url, EVERTURN_API_PORT="0"
    )
    assert await without_database.wait() == 1
    assert "127.0.0.1:1" in (tmp_path / "output").read_text()


async def test_a_process_leads_a_session_and_dies_with_the_server_which_then_starts_again(
    server: ForkServer, tmp_path: Path
) -> None:
    # It waits for the start signal as soon as it is running.
    url = "postgresql://everturn@127.0.0.1:1/everturn"
    waiting = {"EVERTURN_AUTH_SECRET": "s" * 48, "EVERTURN_API_PORT": "0", "DATABASE_URL": url}
    first = await launch(server, tmp_path, "api", waits=True, **waiting)
    assert os.getsid(first.pid) == first.pid
    assert "-m workers api" in " ".join(psutil.Process(first.pid).cmdline())
    ancestor = parent_of(first)
    assert ancestor.pid != os.getpid()

    ancestor.kill()
    assert await first.wait() == -signal.SIGKILL
    second = await launch(server, tmp_path, "api", waits=True, **waiting)
    assert parent_of(second).pid not in {ancestor.pid, os.getpid()}
    second.kill_leader()
    assert await second.wait() == -signal.SIGKILL


async def test_the_migration_is_forked_while_the_server_imports_the_rest(tmp_path: Path) -> None:
    server, order = ForkServer(), []
    server.begin()
    url = "postgresql://everturn@127.0.0.1:1/everturn"

    async def launched(*arguments: str) -> Child:
        child = await launch(server, tmp_path, *arguments, DATABASE_URL=url, EVERTURN_API_PORT="0")
        order.append(arguments[0])
        return child

    asked_first, migration = await asyncio.gather(
        launched("worker", "--queue", "none"), launched("migrate")
    )

    assert order == ["migrate", "worker"]
    assert parent_of(asked_first).pid != os.getpid()
    assert (await asked_first.wait(), await migration.wait()) == (2, 1)
    await server.close()


async def test_other_commands_are_started_by_themselves(server: ForkServer, tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as output:
        child = await server.launch(("echo", "hello"), output=output.fileno())
    assert await child.wait() == 0
    assert (tmp_path / "output").read_text() == "hello\n"


async def test_everturns_commands_start_where_the_server_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.embedded.fork_server.__name__", "no_such_module")

    refused = await launch(ForkServer(), tmp_path, "worker", "--queue", "none")

    assert parent_of(refused).pid == os.getpid()
    assert await refused.wait() == 2


def test_forks_have_ids_and_secrets_of_their_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK_TWICE], capture_output=True, text=True, check=True
    )
    first, second = (line.split() for line in done.stdout.splitlines())
    assert len(first) == 3
    assert not set(first) & set(second)
