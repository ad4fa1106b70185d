"""The supervisor: keeps processes running, and starts and stops them in order."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeAlias

from workers.embedded.child import Child, ProcessRegister
from workers.embedded.errors import ProcessDiedError, ProcessNotReadyError
from workers.embedded.fork_server import ForkServer
from workers.embedded.logs import ProcessLog, Terminal
from workers.embedded.os_user import OsUser

Probe: TypeAlias = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """How to start, to know ready and to stop one process.

    `after` names what must be ready before, and is stopped later. `prepare` runs before every
    start. A process without `ready` is ready once it runs; a `one_shot` once it has succeeded. An
    `early` process is launched at once, to import what it needs while its dependencies start, and
    gets the start signal at its standard input (`workers.startup.await_start_signal`) when they are
    ready; `on_start_signal` is called just before.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    user: OsUser | None = None
    after: tuple[str, ...] = ()
    early: bool = False
    fork_server: ForkServer | None = None
    on_start_signal: Callable[[], None] | None = None
    prepare: Callable[[], Awaitable[None]] | None = None
    ready: Probe | None = None
    ready_timeout: timedelta = timedelta(seconds=60)
    one_shot: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: timedelta = timedelta(seconds=10)
    on_terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When a process that died is started again, and when its start has failed."""

    first_delay: timedelta = timedelta(milliseconds=100)
    longest_delay: timedelta = timedelta(seconds=5)
    stable_after: timedelta = timedelta(seconds=10)
    deaths_before_ready: int = 5
    probe_interval: timedelta = timedelta(milliseconds=30)


class SupervisedProcess:
    """Keeps one process running from `start` to `stop`, and starts it again when it dies."""

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        log: ProcessLog,
        register: ProcessRegister,
        terminal: Terminal,
        restart: RestartPolicy,
    ) -> None:
        self.spec = spec
        self._log = log
        self._register = register
        self._terminal = terminal
        self._restart = restart
        self._ready = asyncio.Event()
        self._was_ready = False
        self._held = True
        self._may_start = asyncio.Event()
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the process, and return when it is ready.

        Errors: ProcessDiedError, ProcessNotReadyError; what `prepare` and `ready` raise.
        """
        if self._task is None or self._task.done():
            self.launch()
        self.send_start_signal()
        await self.wait_ready()

    def launch(self) -> None:
        """Begin to run the process; an early one then waits for the start signal."""
        self._held = self._was_ready = False
        self._task = asyncio.create_task(self._keep_running(), name=self.spec.name)

    def send_start_signal(self) -> None:
        """Let an early process go on: what it depends on is ready."""
        if self.spec.on_start_signal is not None:
            self.spec.on_start_signal()
        self._may_start.set()
        if self._child is not None:
            self._child.send_start_signal()

    async def wait_ready(self) -> None:
        """Return when the process is ready, at once if it is.

        Errors: as for `start`.
        """
        if self._task is None:
            raise RuntimeError(f"{self.spec.name} was not started")
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {waiting, self._task},
                timeout=self.spec.ready_timeout.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            waiting.cancel()
        if self._task.done() and not self._held:
            self._task.result()
        if not self._ready.is_set():
            raise ProcessNotReadyError(self.spec.name, self.spec.ready_timeout, self._log.tail())

    async def stop(self) -> None:
        """Stop the process, and hold it down until `start`."""
        self._held = True
        self._ready.clear()
        if self._task is None:
            return
        if self._child is None:
            self._task.cancel()
        else:
            await self._child.end(self.spec.stop_signal, self.spec.stop_timeout)
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # `start` has raised it

    def kill(self) -> None:
        """Send SIGKILL to the process, which is then started again."""
        self._ready.clear()
        if self._child is not None:
            self._child.kill_leader()

    def kill_for_good(self) -> None:
        """Kill the whole group at once, and don't start it again."""
        self._held = True
        if self._child is not None:
            self._child.kill()

    async def _keep_running(self) -> None:
        clock = asyncio.get_running_loop().time
        delay = self._restart.first_delay
        deaths = 0
        while True:
            begun = clock()
            reason = await self._run_once()
            if self._held or (self.spec.one_shot and self._ready.is_set()):
                return
            deaths += 1
            self._give_up_or_report(reason, deaths)
            if clock() - begun > self._restart.stable_after.total_seconds():
                delay = self._restart.first_delay
            await asyncio.sleep(delay.total_seconds())
            delay = min(2 * delay, self._restart.longest_delay)

    def _give_up_or_report(self, reason: str, deaths: int) -> None:
        limit = 1 if self.spec.one_shot else self._restart.deaths_before_ready
        if self._was_ready:
            self._terminal.say(f"{self.spec.name} ended ({reason}). Restarting it.")
        elif deaths >= limit:
            raise ProcessDiedError(self.spec.name, reason, self._log.tail())

    async def _run_once(self) -> str:
        """Run the process to its end, and return the reason of the end."""
        if self.spec.prepare is not None:
            await self.spec.prepare()
        try:
            async with self._log.sink() as output:
                server = self.spec.fork_server
                launch = Child.launch if server is None else server.launch
                self._child = await launch(
                    self.spec.command,
                    output=output,
                    env=self.spec.env,
                    cwd=self.spec.cwd,
                    user=self.spec.user,
                    awaits_start_signal=self.spec.early,
                )
                if self._may_start.is_set():
                    self._child.send_start_signal()
        except OSError as reason:
            return f"{self.spec.command[0]}: {reason.strerror}"
        try:
            return await self._watch(self._child)
        finally:
            self._child.kill()
            self._child = None
            self._register.remove(self.spec.name)

    async def _watch(self, child: Child) -> str:
        self._register.add(self.spec.name, child.pid)
        ending = asyncio.create_task(child.wait())
        probing = asyncio.create_task(self._become_ready())
        try:
            await asyncio.wait({ending, probing}, return_when=asyncio.FIRST_COMPLETED)
            if probing.done():
                probing.result()
            await asyncio.wait({ending})
        finally:
            self._ready.clear()
            probing.cancel()
            child.kill()
            await asyncio.wait({ending})
        await self._log.drain()
        if self.spec.one_shot and ending.result() == 0:
            self._set_ready()
        return _described(ending.result())

    async def _become_ready(self) -> None:
        if self.spec.one_shot:
            return
        await self._may_start.wait()
        # A server can only be asked, so there is no event to wait for.
        while self.spec.ready is not None and not await self.spec.ready():  # noqa: ASYNC110
            await asyncio.sleep(self._restart.probe_interval.total_seconds())
        self._set_ready()

    def _set_ready(self) -> None:
        self._was_ready = True
        if not self._held:
            self._ready.set()


def _described(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-exit_code).name
    return f"signal {-exit_code}"


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
                state = "finished" if process.spec.one_shot else "is ready"
                self._terminal.say(f"{process.spec.name} {state} after {took:.1f} s.")

        for process in self._processes.values():
            group.create_task(start_in_order(process))

    def _dependents(self, name: str) -> list[str]:
        return [other for other, p in self._processes.items() if name in p.spec.after]
