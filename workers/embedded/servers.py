"""Owns the embedded servers as a whole: opened together, closed together, killed one by one."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from workers.embedded.addresses import ServerAddresses
from workers.embedded.data_directory import DataDirectory
from workers.embedded.logs import Terminal
from workers.embedded.ports import Ports
from workers.embedded.postgres import EmbeddedPostgres
from workers.embedded.processes import ProcessSpec
from workers.embedded.register import ProcessRegister
from workers.embedded.supervisor import Supervisor
from workers.embedded.temporal import EmbeddedTemporal
from workers.embedded.valkey import EmbeddedValkey

# Where Temporal and its UI are by custom, if nothing else is there.
_TEMPORAL_PORT, _TEMPORAL_UI_PORT = 7233, 8233


class EmbeddedServers:
    """Postgres, Valkey and Temporal, from `open` to `close` or as an async context manager.

    Processes are known by name: `postgres`, `valkey`, `temporal`. To be used in the main thread.
    Errors: EmbeddedStackError.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        ephemeral: bool = False,
        namespaces: Sequence[str] = (),
        terminal: Terminal | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._ephemeral = ephemeral
        self._namespaces = tuple(namespaces)
        self._terminal = terminal or Terminal()
        self._directory: DataDirectory | None = None
        self._supervisor: Supervisor | None = None
        self._addresses: ServerAddresses | None = None

    @property
    def addresses(self) -> ServerAddresses:
        """Where the servers are."""
        if self._addresses is None:
            raise RuntimeError("the stack is not open")
        return self._addresses

    @property
    def directory(self) -> DataDirectory:
        """Where the stack keeps its data."""
        if self._directory is None:
            raise RuntimeError("the stack is not open")
        return self._directory

    async def open(self) -> None:
        """Start everything, and return when everything is ready.

        After a failure, or when cancelled, nothing runs and the data directory is free.
        """
        self._directory = DataDirectory.open(self._data_dir, ephemeral=self._ephemeral)
        try:
            await self._start(self._directory)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop everything in order, and give the data directory back."""
        try:
            if self._supervisor is not None:
                await self._supervisor.stop()
        finally:
            if self._directory is not None:
                self._directory.close()
            self._supervisor = self._directory = self._addresses = None

    def kill(self, name: str) -> None:
        """Send SIGKILL to a process, which is then started again."""
        self._running[name].kill()

    async def stop(self, name: str) -> None:
        """Stop a process and hold it down until `start`."""
        await self._running[name].stop()

    async def start(self, name: str) -> None:
        """Start a process that was stopped, and return when it is ready."""
        await self._running[name].start()

    async def wait_ready(self, name: str) -> None:
        """Return when a process is ready, as after `kill`."""
        await self._running[name].wait_ready()

    def pid(self, name: str) -> int | None:
        """Return the process id, or None while the process does not run."""
        return self._running[name].pid

    def kill_all(self) -> None:
        """Kill every process at once; `close` then has nothing to wait for."""
        if self._supervisor is not None:
            self._supervisor.kill_all()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise RuntimeError("the stack is not open")
        return self._supervisor

    async def _start(self, directory: DataDirectory) -> None:
        register = ProcessRegister(directory.path)
        leftovers = register.end_leftovers()
        if leftovers:
            self._terminal.say(f"Ended what an earlier start had left: {', '.join(leftovers)}.")
        ports = Ports(directory.path / "ports.json")
        specs = (*self._server_specs(directory, ports), *self._further_specs(directory, ports))
        self._supervisor = Supervisor(
            specs,
            logs=directory.folder("logs"),
            register=register,
            terminal=self._terminal,
        )
        await self._supervisor.start()

    def _server_specs(self, directory: DataDirectory, ports: Ports) -> tuple[ProcessSpec, ...]:
        postgres = EmbeddedPostgres(directory, ports.of("postgres"), self._terminal)
        valkey = EmbeddedValkey(directory, ports.of("valkey"))
        temporal = EmbeddedTemporal(
            directory,
            self._temporal_port(ports, "temporal", _TEMPORAL_PORT),
            self._temporal_port(ports, "temporalUi", _TEMPORAL_UI_PORT),
            self._namespaces,
        )
        self._addresses = ServerAddresses(
            database=postgres.url,
            migration_database=postgres.migration_url,
            redis=valkey.url,
            temporal=temporal.address,
            temporal_ui=temporal.ui,
        )
        return postgres.spec(), valkey.spec(), temporal.spec()

    def _temporal_port(self, ports: Ports, name: str, usual: int) -> int:
        # Ephemeral stacks start several at a time, and would race for the usual port.
        return ports.of(name, preferred=None if self._ephemeral else usual)

    def _further_specs(self, directory: DataDirectory, ports: Ports) -> tuple[ProcessSpec, ...]:
        """Describe what else runs; nothing, where the servers are all."""
        del directory, ports
        return ()
