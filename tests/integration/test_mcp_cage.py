"""What a stdio server starts stays in its cage, however it forks: counted, and ended with it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from services.mcp.addresses import ServerAddress, Timeouts
from services.mcp.connection import Connection
from services.mcp.errors import CallLostError, McpServerError
from tests.running_everturn.waiting import eventually

FORKING = str(Path(__file__).parents[1] / "fakes" / "mcp_forking.py")
MEBIBYTE = 2**20


@pytest.fixture(autouse=True)
async def nothing_is_left(tmp_path: Path) -> AsyncIterator[None]:
    """Fails if a process still runs in the test's folder, and ends it."""
    yield
    try:
        await eventually(looking_for(tmp_path), lambda found: not found, within_s=10)
    finally:
        for pid in living_in(tmp_path):
            os.kill(pid, signal.SIGKILL)


def living_in(directory: Path) -> list[int]:
    """Return the processes whose working directory it is: those of one server, and no others."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == directory:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def looking_for(directory: Path) -> Callable[[], Awaitable[list[int]]]:
    async def look() -> list[int]:
        return living_in(directory)

    return look


@asynccontextmanager
async def connected(
    home: Path,
    mode: str,
    *,
    memory_bytes: int = 2**30,
    processes: int = 256,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Connection]:
    """A connection to the server that forks."""
    address = ServerAddress(
        command=sys.executable,
        args=("-I", "-S", FORKING, mode),
        url=None,
        secrets=env or {},
        home=home,
        memory_bytes=memory_bytes,
        processes=processes,
    )
    connection = Connection(address, allowed_hosts=(), timeouts=Timeouts())
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


async def ignore(progress: float, total: float | None, message: str | None) -> None:
    """Take no notice of progress."""


async def fork(connection: Connection) -> int:
    """Make the server fork, and return the id of its process."""
    result = await connection.call_tool("fork", {}, meta={}, on_progress=ignore)
    return int(result.content[0].model_dump()["text"])


async def orphans(home: Path, *, at_least: int = 1) -> list[int]:
    """Return the orphans that run by now."""

    async def look() -> list[int]:
        found = list(home.glob("orphan-*"))  # noqa: ASYNC240 -- a test alone with its loop
        return [int(path.name.partition("-")[2]) for path in found]

    return await eventually(look, lambda found: len(found) >= at_least)


@pytest.mark.parametrize("mode", ["orphan", "run_away"])
async def test_an_orphan_in_a_session_of_its_own_ends_with_the_server(
    tmp_path: Path, mode: str
) -> None:
    async with connected(tmp_path, mode) as connection:
        await fork(connection)
        await orphans(tmp_path)

        assert len(living_in(tmp_path)) >= 1

    assert living_in(tmp_path) == []


async def test_a_server_that_forks_into_the_background_serves_from_there(tmp_path: Path) -> None:
    async with connected(tmp_path, "daemon") as connection:
        pid = await fork(connection)

        assert os.getpgid(pid) != pid
        assert await fork(connection) == pid

    assert living_in(tmp_path) == []


async def test_memory_of_an_orphan_counts_as_the_servers(tmp_path: Path) -> None:
    async with connected(tmp_path, "hoard", memory_bytes=100 * MEBIBYTE) as connection:
        await fork(connection)

        await ended(connection)

        assert connection.ended_by == "The server was killed: it used over 100 MiB of memory."


async def test_orphans_are_counted_up_to_a_number(tmp_path: Path) -> None:
    async with connected(tmp_path, "multiply", processes=20) as connection:
        await fork(connection)

        await ended(connection)

        assert connection.ended_by == "The server was killed: it ran more than 20 processes."


async def test_an_orphan_that_holds_the_streams_does_not_hide_a_crash(tmp_path: Path) -> None:
    async with connected(tmp_path, "die") as connection:
        with pytest.raises(CallLostError, match=r"The process exited with status 5\."):
            await fork(connection)


async def test_a_server_that_kills_its_supervisor_is_ended_all_the_same(tmp_path: Path) -> None:
    async with connected(tmp_path, "rebel") as connection:
        with suppress(CallLostError):  # or its answer comes first
            await fork(connection)
        await orphans(tmp_path)
        await ended(connection)

        assert connection.ended_by == "The process that supervises the server was killed."

    assert living_in(tmp_path) == []


async def test_a_server_ends_with_the_worker_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.integration.test_mcp_cage import connected, fork\n"
        "async def main():\n"
        "    async with connected(Path(sys.argv[1]), 'orphan') as connection:\n"
        "        await fork(connection)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path))
    await orphans(tmp_path)

    worker.kill()
    await worker.wait()

    assert await eventually(looking_for(tmp_path), lambda found: not found, within_s=10) == []


async def test_the_supervisor_takes_nothing_from_the_servers_environment(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit('injected')")
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "error", "LD_BIND_NOW": "1"}

    async with connected(tmp_path, "pid", env=hostile) as connection:
        server = psutil.Process(await fork(connection))
        supervisor = server.parent()

        assert hostile.items() <= server.environ().items()
        assert supervisor is not None
        assert not hostile.keys() & supervisor.environ().keys()


@pytest.mark.parametrize("command", ["no-such-command", "/", "null\0"])
async def test_a_command_that_cannot_be_started_is_named_as_the_problem(
    tmp_path: Path, command: str
) -> None:
    address = ServerAddress(command=command, args=(), url=None, secrets={}, home=tmp_path)
    connection = Connection(address, allowed_hosts=(), timeouts=Timeouts())

    with pytest.raises(McpServerError, match=r"The command failed to start: "):
        await connection.open()


async def ended(connection: Connection) -> None:
    """Wait until the connection has ended."""

    async def look() -> bool:
        return connection.has_ended and connection.ended_by is not None

    await eventually(look, bool)
