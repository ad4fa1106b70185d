"""Further processes of Everturn beside those of a stack, as during a deploy."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from tests.running_everturn.process import free_port
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually
from workers.embedded.child import Child

ALL_QUEUES: Final = ("turns", "tools", "background")
_READY_WITHIN_S: Final = 60.0
_ENDED_WITHIN_S: Final = 40.0


class Beside:
    """A process of its own, seen from outside: its probes, its output and its end."""

    def __init__(self, process: Child, port: int, written: Path) -> None:
        self._process = process
        self._ending = asyncio.create_task(process.wait())
        self.port = port
        self._written = written

    @property
    def output(self) -> str:
        """What it has written."""
        return self._written.read_text()

    async def probe(self, path: str) -> int:
        """Return the status of a probe, 0 while nothing listens."""
        # It is asked again and again, and reading certificates would take 20 ms each time.
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            try:
                response = await http.get(f"http://127.0.0.1:{self.port}{path}")
            except httpx.TransportError:
                return 0
        return response.status_code

    async def become_ready(self) -> None:
        """Wait until it is ready. Errors: AssertionError where it ends instead."""

        async def look() -> int:
            assert not self._ending.done(), self.output
            return await self.probe("/ready")

        await eventually(look, lambda status: status == 200, within_s=_READY_WITHIN_S)

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, and wait for nothing."""
        os.kill(self._process.pid, number)

    async def stopping(self) -> None:
        """Wait until it takes no more work."""
        await eventually(lambda: self.probe("/ready"), lambda status: status != 200)

    async def ended(self) -> int:
        """Return its exit code when it has ended."""
        async with asyncio.timeout(_ENDED_WITHIN_S):
            return await asyncio.shield(self._ending)

    async def put_down(self) -> None:
        """Make sure that it does not run."""
        self._process.kill()
        await self._ending


@asynccontextmanager
async def beside(everturn: ScriptedStack, *command: str, **settings: str) -> AsyncIterator[Beside]:
    """Run a command with the settings of the stack's workers and these, until the block is left."""
    port = free_port()
    inherited = everturn.stack.environment("worker-turns")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "output.txt"
        output = os.open(written, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            process = await everturn.stack.fork_server.launch(
                command,
                output=output,
                env={**inherited, "EVERTURN_METRICS_PORT": str(port), **settings},
                cwd=Path(__file__).parents[2],
            )
        finally:
            os.close(output)
        running = Beside(process, port, written)
        try:
            yield running
        finally:
            await running.put_down()


@asynccontextmanager
async def worker_beside(
    everturn: ScriptedStack,
    queues: Sequence[str] = ("turns",),
    *,
    module: str = "workers",
    **settings: str,
) -> AsyncIterator[Beside]:
    """Run a ready worker of these queues beside those of the stack."""
    options = (f"--queue={queue}" for queue in queues)
    command = (sys.executable, "-m", module, "worker", *options)
    async with beside(everturn, *command, **settings) as worker:
        await worker.become_ready()
        yield worker


async def run_command(
    everturn: ScriptedStack, *arguments: str, module: str = "workers", **settings: str
) -> tuple[int, str]:
    """Run a command with the stack's settings to its end; return its exit code and its output."""
    command = (sys.executable, "-m", module, *arguments)
    async with beside(everturn, *command, **settings) as process:
        return await process.ended(), process.output
