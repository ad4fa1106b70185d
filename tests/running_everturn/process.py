"""`everturn dev` and the other commands as processes of their own."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tests.running_everturn.waiting import eventually

EVERTURN: Final = str(Path(sys.executable).with_name("everturn"))

OURS: Final = (
    *("EVERTURN_", "ANTHROPIC_", "OTEL_", "BRAVE_"),
    *("DATABASE_URL", "REDIS_URL", "TEMPORAL_"),
)
_READY_WITHIN_S: Final = 120.0
_STOPPED_WITHIN_S: Final = 40.0


def environment(**settings: str) -> dict[str, str]:
    """Return the environment without anybody's settings of Everturn, but for these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    ours = {"PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", "EVERTURN_RATE_LIMITS": "false"}
    ours["EVERTURN_MEMORY_EXTRACTION"] = "false"
    return inherited | ours | settings


def free_port() -> int:
    """Return a port of loopback that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it wrote."""

    exit_code: int
    output: str
    errors: str


async def run(*command: str, folder: Path, typed: str = "", **settings: str) -> Ended:
    """Run a command to its end. `folder` is where it runs: a place without any `.env`."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment(**settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_READY_WITHIN_S):
            output, errors = await process.communicate(typed.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, output.decode(), errors.decode())


class EverturnDev:
    """A running `everturn dev`."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, written: Path) -> None:
        self._process = process
        self._folder = folder
        self._written = written
        self.addresses: Mapping[str, Any] = {}

    @property
    def data(self) -> Path:
        """Its data directory; an ephemeral one has a random name."""
        (addresses,) = self._folder.glob("*/addresses.json")
        return addresses.parent

    @property
    def output(self) -> str:
        """What it has written to its terminal."""
        return self._written.read_text()

    def log(self, name: str) -> str:
        """Return the log of one of its processes."""
        return (self.data / "logs" / f"{name}.log").read_text()

    def pids(self) -> dict[str, int]:
        """Return what `processes.json` says runs."""
        pids: dict[str, int] = json.loads((self.data / "processes.json").read_text())
        return pids

    def family(self) -> list[psutil.Process]:
        """Return all processes that belong to it, itself among them."""
        return _with_descendants([self._process.pid, *self.pids().values()])

    async def become_ready(self) -> None:
        """Wait for the line that says so. Errors: AssertionError where it ends instead."""

        async def look() -> str:
            assert self._process.returncode is None, self.output
            return self.output

        await eventually(look, lambda said: "Ready in" in said, within_s=_READY_WITHIN_S)
        self.addresses = json.loads((self.data / "addresses.json").read_text())

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code; nothing else is done to help it."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(_STOPPED_WITHIN_S):
            return await self._process.wait()

    async def put_down(self) -> None:
        """Make sure that nothing of it runs, however the test went."""
        if self._process.returncode is not None:
            return
        try:
            await self.stop()
        except TimeoutError:
            for process in _with_descendants([self._process.pid]):
                with suppress(psutil.Error):
                    process.kill()
            await self._process.wait()


@asynccontextmanager
async def everturn_dev(
    folder: Path, *, ephemeral: bool = False, **settings: str
) -> AsyncIterator[EverturnDev]:
    """Run `everturn dev` on any free port, with its data in `folder`, until the block is left."""
    written = folder / "output.txt"
    where = ("--ephemeral",) if ephemeral else ("--data-dir", str(folder / "data"))
    output = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *(EVERTURN, "dev", *where, "--port", "0"),
            cwd=folder,
            env=environment(TMPDIR=str(folder), **settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    finally:
        os.close(output)
    everturn = EverturnDev(process, folder, written)
    try:
        await everturn.become_ready()
        yield everturn
    finally:
        await everturn.put_down()


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those of the processes that have not ended."""
    return [process for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _with_descendants(pids: list[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found |= {p.pid: p for p in (process, *process.children(recursive=True))}
    return list(found.values())
