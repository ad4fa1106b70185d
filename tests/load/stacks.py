"""Running stacks: `everturn dev` of any checkout, seen from outside."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from tests.load.machine import CpuTimes, megabytes_of
from tests.running_everturn.process import EverturnDev, environment, free_port
from tests.running_everturn.waiting import eventually
from workers.embedded.ports import accepts, answers
from workers.embedded.postgres import SUPERUSER

ROOT: Final = Path(__file__).parents[2]
PROCESSES: Final = ("postgres", "valkey", "temporal", "api", "worker-turns", "worker-tools")
ADMIN: Final = {"email": "bench@example.com", "password": "a password of the benchmark"}
_OWN: Final = ("api", "worker")
_READY_S: Final = 60.0
# Each process starts by its own command, as in production: `everturn dev` forks those that begin
# as its own do from one that has imported everything.
_AS_IN_PRODUCTION: Final = """
import sys
from pathlib import Path
from workers.dev import run_dev
from workers.embedded.stack import Commands
everturn = str(Path(sys.executable).with_name("everturn"))
run_dev(Path(sys.argv[1]), port=0, commands=Commands(api=(everturn, "api"), workers={
    "worker-turns": (everturn, "worker", "--queue", "turns"),
    "worker-tools": (everturn, "worker", "--queue", "tools", "--queue", "background"),
}))
"""


@dataclass(frozen=True, slots=True)
class Checkout:
    """Code to measure, and the interpreter of an environment with what it requires."""

    folder: Path = ROOT
    python: str = sys.executable


HERE: Final = Checkout()


class Stack:
    """A running `everturn dev`, seen from outside: any version has these files."""

    def __init__(
        self, dev: EverturnDev, *, root: int, checkout: Checkout, settings: Mapping[str, str]
    ) -> None:
        self._dev = dev
        self._root = root
        self._checkout = checkout
        self._settings = settings
        self.directory: Final = dev.data
        self.api: Final[str] = dev.addresses["api"]
        self.redis: Final[str] = dev.addresses["redis"]
        self.temporal: Final[str] = dev.addresses["temporal"]
        self._secrets: Final = json.loads((self.directory / "secrets.json").read_text())

    @property
    def superuser(self) -> str:
        """The database as its superuser."""
        address = urlsplit(str(self._dev.addresses["database"]))
        password = self._secrets["postgres_superuser"]
        netloc = f"{SUPERUSER}:{password}@{address.hostname}:{address.port}"
        return urlunsplit(address._replace(netloc=netloc))

    def pids(self) -> dict[str, int]:
        """Return the processes by name; `dev` is the one that started the others."""
        return {**self._dev.pids(), "dev": self._root}

    def cpu(self) -> CpuTimes:
        """Read the CPU of all processes."""
        return CpuTimes.now(self.pids())

    def own_memory_mb(self) -> float:
        """Return the memory of the API and the workers, with what they share counted once."""
        own = {name: pid for name, pid in self.pids().items() if name.startswith(_OWN)}
        return megabytes_of(own)

    def memory_mb(self) -> float:
        """Return the memory of all processes, with what they share counted once."""
        return megabytes_of(self.pids())

    @asynccontextmanager
    async def further(self, *command: str) -> AsyncIterator[tuple[int, int]]:
        """Run one more process of Everturn's, as in production; yield its id and its API's port."""
        port, health = free_port(), free_port()
        addresses = self._dev.addresses
        process = await asyncio.create_subprocess_exec(
            *(self._checkout.python, "-m", "workers", *command),
            cwd=self.directory,
            env={
                **environment(**self._settings),
                "DATABASE_URL": addresses["database"],
                "REDIS_URL": addresses["redis"],
                "TEMPORAL_ADDRESS": addresses["temporal"],
                "EVERTURN_AUTH_SECRET": self._secrets["auth_secret"],
                "EVERTURN_ENCRYPTION_KEYS": self._secrets["encryption_key"],
                "EVERTURN_BUILD_ID": "dev",
                "EVERTURN_MCP_HOME": str(self.directory / "mcp"),
                "EVERTURN_API_PORT": str(port),
                "EVERTURN_METRICS_PORT": str(health),
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        is_api = command[0] == "api"
        ready = f"{port}/api/v1/health/ready" if is_api else f"{health}/ready"
        try:
            await eventually(lambda: answers(f"http://127.0.0.1:{ready}"), bool, within_s=_READY_S)
            yield process.pid, port
        finally:
            await _end(process)


@asynccontextmanager
async def open_stack(
    folder: Path,
    *,
    checkout: Checkout = HERE,
    ephemeral: bool = False,
    as_in_production: bool = False,
    settings: Mapping[str, str],
) -> AsyncIterator[Stack]:
    """Run `everturn dev` of a checkout on the data in a folder, without rate limits.

    Memories are extracted and chats named, as by default.
    """
    ours = {
        "EVERTURN_MEMORY_EXTRACTION": "true",
        "EVERTURN_ACCESS_TOKEN_MINUTES": "600",
        "EVERTURN_ADMIN_EMAIL": ADMIN["email"],
        "EVERTURN_ADMIN_PASSWORD": ADMIN["password"],
        # Where the webhooks of the bench are.
        "EVERTURN_ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(
            map(str, (checkout.folder, checkout.folder / "clients" / "python"))
        ),
        **settings,
    }
    data, written = folder / "data", folder / "output.txt"
    await asyncio.to_thread(make_folder, folder)
    where = ("--ephemeral",) if ephemeral else ("--data-dir", str(data))
    command = (
        ("-c", _AS_IN_PRODUCTION, str(data))
        if as_in_production
        else ("-m", "workers", "dev", *where, "--port", "0")
    )
    with written.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(checkout.python, *command),
            cwd=folder,
            env=environment(TMPDIR=str(folder), **ours),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    dev = EverturnDev(process, folder, written)
    try:
        await dev.become_ready()
        yield Stack(dev, root=process.pid, checkout=checkout, settings=ours)
    finally:
        await dev.put_down()


def make_folder(folder: Path) -> None:
    """Create a folder that Postgres gets into, which is another user where this is root."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)


@asynccontextmanager
async def run_program(module: str, **settings: str) -> AsyncIterator[tuple[int, int]]:
    """Run a server of the tests that takes its port as an argument; yield the port and its id."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(port)), env={**environment(), **settings}, cwd=ROOT
    )

    async def is_up() -> bool:
        return await accepts(port)

    try:
        await eventually(is_up, bool)
        yield port, process.pid
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    # After Ctrl-C, it may have ended by itself.
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()
