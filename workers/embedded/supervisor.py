"""Owns the order in which processes start and stop."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from workers.embedded.logs import ProcessLog, Terminal
from workers.embedded.processes import ProcessSpec, RestartPolicy, SupervisedProcess
from workers.embedded.register import ProcessRegister

_WORTH_A_LINE_S: Final = 1.0


class Supervisor:
    """Starts processes after what they depend on, and stops them before it."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        logs: Path,
        register: ProcessRegister,
        terminal: Terminal,
        restart: RestartPolicy | None = None,
    ) -> None:
        self._register = register
        self._terminal = terminal
        terminal.introduce([spec.name for spec in specs if spec.on_terminal])
        self._processes = {
            spec.name: SupervisedProcess(
                spec,
                log=ProcessLog(spec.name, logs, terminal if spec.on_terminal else None),
                register=register,
                terminal=terminal,
                restart=restart or RestartPolicy(),
            )
            for spec in specs
        }

    async def start(self) -> None:
        """Start everything, and return when everything is ready.

        Processes that don't depend on each other start at the same time. After a failure, or when
        cancelled, everything is stopped again.
        Errors: those of SupervisedProcess.start, of the first process that failed.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._start_in_order(group)
        except ExceptionGroup as failures:
            await self.stop()
            raise failures.exceptions[0] from None
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything, each process when all that depend on it have stopped."""
        stopping: dict[str, asyncio.Task[None]] = {}

        async def stop_in_order(process: SupervisedProcess) -> None:
            dependents = [stopping[name] for name in self._dependents(process.spec.name)]
            await asyncio.gather(*dependents)
            await process.stop()

        for name, process in self._processes.items():
            stopping[name] = asyncio.create_task(stop_in_order(process))
        await asyncio.gather(*stopping.values())
        self._register.close()

    def kill_all(self) -> None:
        """Kill everything at once; `stop` then has nothing to wait for."""
        for process in self._processes.values():
            process.kill_for_good()

    def __getitem__(self, name: str) -> SupervisedProcess:
        return self._processes[name]

    def _start_in_order(self, group: asyncio.TaskGroup) -> None:
        ready = {name: asyncio.Event() for name in self._processes}
        clock = asyncio.get_running_loop().time

        async def start_in_order(process: SupervisedProcess) -> None:
            if process.spec.early:
                process.launch()
            for name in process.spec.after:
                await ready[name].wait()
            if not process.spec.early:
                process.launch()
            process.send_start_signal()
            begun = clock()
            await process.wait_ready()
            ready[process.spec.name].set()
            if (took := clock() - begun) > _WORTH_A_LINE_S:
                self._terminal.say(f"{process.spec.name} is ready after {took:.1f} s.")

        for process in self._processes.values():
            group.create_task(start_in_order(process))

    def _dependents(self, name: str) -> list[str]:
        return [other for other, p in self._processes.items() if name in p.spec.after]
