"""The stack of `everturn dev`: the embedded servers and Everturn's own processes on top."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

from schema.names import DEPLOYMENT, DEV_BUILD_ID
from services.settings import Settings
from workers.embedded.addresses import ServerAddresses, StackAddresses
from workers.embedded.data_directory import DataDirectory
from workers.embedded.fork_server import EVERTURN, ForkServer
from workers.embedded.logs import Terminal
from workers.embedded.ports import LOOPBACK, Ports, accepts, answers, require_free
from workers.embedded.servers import DEFAULT_NAMESPACE, EmbeddedServers
from workers.embedded.supervisor import ProcessSpec

_ANTHROPIC = "https://api.anthropic.com"
_SERVERS = ("postgres", "valkey", "temporal")
_GRACE_S = 5.0
_STOP_S = 5.0
"""How long our processes may take to stop beyond their grace."""


def _everturn(*arguments: str) -> tuple[str, ...]:
    return (*EVERTURN, *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """The command lines of our processes; `demo_model` gets its port appended."""

    migrate: tuple[str, ...] = _everturn("migrate", "--no-temporal")
    api: tuple[str, ...] = _everturn("api")
    demo_model: tuple[str, ...] = _everturn("demo-model", "--port")
    workers: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "worker-turns": _everturn("worker", "--queue", "turns"),
            "worker-tools": _everturn("worker", "--queue", "tools", "--queue", "background"),
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Applications:
    """The demo model if one is needed, the migration, the API and the workers of one stack."""

    settings: Settings
    commands: Commands
    fork_server: ForkServer
    servers: ServerAddresses
    auth_secret: str
    encryption_key: str
    mcp_home: Path
    port: int
    demo_model_port: int | None
    metrics_ports: Mapping[str, int]
    on_api_start: Callable[[], None]

    @property
    def addresses(self) -> StackAddresses:
        """Where everything is."""
        return StackAddresses(
            **asdict(self.servers),
            api=self.api,
            model=self.model,
            metrics={name: f"{self._origin(name)}/metrics" for name in self.metrics_ports},
        )

    @property
    def api(self) -> str:
        """The origin under which this machine reaches the API."""
        host = self.settings.api_host
        if host in {"0.0.0.0", "::"}:  # noqa: S104
            host = LOOPBACK
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def model(self) -> str:
        """Where model calls go."""
        if self.demo_model_port is not None:
            return f"http://{LOOPBACK}:{self.demo_model_port}"
        return self.settings.anthropic_base_url or _ANTHROPIC

    def specs(self) -> tuple[ProcessSpec, ...]:
        """Describe the processes: the migration first, the API and the workers after it."""
        models = ("demo-model",) if self.demo_model_port is not None else ()
        after = (*_SERVERS, *models, "migrate")
        return (
            *self._demo_model(),
            self._promote(),
            self._migrate(),
            self._api(after),
            *(self._worker(name, after) for name in self.commands.workers),
        )

    def _demo_model(self) -> tuple[ProcessSpec, ...]:
        port = self.demo_model_port
        if port is None:
            return ()
        spec = ProcessSpec(
            name="demo-model",
            command=(*self.commands.demo_model, str(port)),
            env=self._environment(),
            fork_server=self.fork_server,
            ready=lambda: accepts(port),
            on_terminal=True,
        )
        return (spec,)

    def _promote(self) -> ProcessSpec:
        """Make the workers' version current before they poll, which takes them a second or two."""
        return ProcessSpec(
            name="promote",
            command=(
                *(
                    str(Path(sys.executable).with_name("temporal")),
                    "worker",
                    "deployment",
                    "set-current-version",
                    "--yes",
                ),
                *("--address", self.servers.temporal, "--namespace", DEFAULT_NAMESPACE),
                *("--deployment-name", DEPLOYMENT, "--build-id", DEV_BUILD_ID),
                "--allow-no-pollers",
            ),
            env=self._environment(),
            after=("temporal",),
            one_shot=True,
        )

    def _migrate(self) -> ProcessSpec:
        return ProcessSpec(
            name="migrate",
            command=self.commands.migrate,
            env=self._environment()
            | {"EVERTURN_MIGRATION_DATABASE_URL": self.servers.migration_database},
            after=("postgres",),
            early=True,
            fork_server=self.fork_server,
            one_shot=True,
            ready_timeout=timedelta(minutes=5),
        )

    def _api(self, after: tuple[str, ...]) -> ProcessSpec:
        return ProcessSpec(
            name="api",
            command=self.commands.api,
            env=self._environment() | self._metrics_environment("api"),
            after=after,
            early=True,
            fork_server=self.fork_server,
            on_start_signal=self.on_api_start,
            ready=lambda: answers(f"{self.api}/api/v1/health/ready"),
            stop_timeout=self._stop_timeout,
            on_terminal=True,
        )

    def _worker(self, name: str, after: tuple[str, ...]) -> ProcessSpec:
        return ProcessSpec(
            name=name,
            command=self.commands.workers[name],
            env=self._environment() | self._metrics_environment(name),
            after=after,
            early=True,
            fork_server=self.fork_server,
            ready=lambda: answers(self._origin(name) + "/ready"),
            stop_timeout=self._stop_timeout,
            on_terminal=True,
        )

    def _origin(self, name: str) -> str:
        """Return the origin of a process's metrics and, if it is a worker's, of its health."""
        return f"http://{LOOPBACK}:{self.metrics_ports[name]}"

    def _metrics_environment(self, name: str) -> dict[str, str]:
        port = self.metrics_ports[name]
        return {"EVERTURN_METRICS_HOST": LOOPBACK, "EVERTURN_METRICS_PORT": str(port)}

    def _environment(self) -> dict[str, str]:
        """Return the user's environment, with what belongs to this stack put over it."""
        ours = {
            **self._defaults(),
            **self._model_environment(),
            "DATABASE_URL": self.servers.database,
            "REDIS_URL": self.servers.redis,
            "TEMPORAL_ADDRESS": self.servers.temporal,
            "TEMPORAL_NAMESPACE": DEFAULT_NAMESPACE,
            # The user's configuration of Temporal's clients is for another server.
            "TEMPORAL_TLS": "false",
            "TEMPORAL_API_KEY": "",
            "TEMPORAL_CONFIG_FILE": "",
            "EVERTURN_TEMPORAL_UI_URL": self.servers.temporal_ui,
            "EVERTURN_API_HOST": self.settings.api_host,
            "EVERTURN_API_PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }
        files = {f"{name}_FILE" for name in (*ours, "EVERTURN_MIGRATION_DATABASE_URL")}
        return {name: value for name, value in os.environ.items() if name not in files} | ours

    def _defaults(self) -> dict[str, str]:
        """Return what the user's environment and `.env` did not set themselves."""
        defaults = {
            "auth_secret": self.auth_secret,
            "encryption_keys": self.encryption_key,
            "log_format": "console",
            "mcp_home": str(self.mcp_home),
            "shutdown_grace_s": str(self._grace_s),
            "build_id": DEV_BUILD_ID,
        }
        if self.settings.smtp_host is None:
            defaults["mail_log"] = "true"
        unset = defaults.keys() - self.settings.model_fields_set
        return {f"EVERTURN_{name.upper()}": defaults[name] for name in unset}

    @property
    def _grace_s(self) -> float:
        """How long Ctrl-C waits for running activities: less than a deploy does, if not set."""
        if "shutdown_grace_s" in self.settings.model_fields_set:
            return self.settings.shutdown_grace_s
        return _GRACE_S

    @property
    def _stop_timeout(self) -> timedelta:
        """When a process that was asked to stop is killed."""
        return timedelta(seconds=self.settings.drain_s + self._grace_s + _STOP_S)

    def _model_environment(self) -> dict[str, str]:
        if self.demo_model_port is None:
            return {}
        # A proxy that the user needs for the internet does not lead to loopback.
        direct = ",".join(filter(None, (os.environ.get("NO_PROXY"), LOOPBACK, "localhost")))
        return {
            "ANTHROPIC_BASE_URL": self.model,
            "ANTHROPIC_API_KEY": "demo",
            "NO_PROXY": direct,
            "no_proxy": direct,
        }


class DevelopmentStack(EmbeddedServers):
    """Everything that `everturn dev` runs, with `addresses.json` for scripts while it is open.

    Further names: `api`, `worker-turns`, `worker-tools`, and `demo-model` where no key is set.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        settings: Settings,
        ephemeral: bool = False,
        terminal: Terminal | None = None,
        commands: Commands | None = None,
        fork_server: ForkServer | None = None,
    ) -> None:
        super().__init__(data_dir, ephemeral=ephemeral, terminal=terminal)
        self._settings = settings
        self._commands = commands or Commands()
        self.fork_server = fork_server or ForkServer()
        self._applications: Applications | None = None

    @property
    def has_demo_model(self) -> bool:
        """Whether the model is the demo, because no key is set."""
        key = self._settings.anthropic_api_key
        return key is None or not key.get_secret_value()

    @property
    def addresses(self) -> StackAddresses:
        """Where everything is."""
        if self._applications is None:
            raise RuntimeError("the stack is not open")
        return self._applications.addresses

    @property
    def migration_database(self) -> str:
        """The database as its superuser."""
        return super().addresses.migration_database

    async def open(self) -> None:
        """Start everything, and return when everything is ready.

        Errors: PortTakenError before anything is started.
        """
        if self._settings.api_port:
            require_free(self._settings.api_port, host=self._settings.api_host)
        self._terminal.say("Starting Postgres, Valkey, Temporal, the API and the workers ...")
        await super().open()

    async def close(self) -> None:
        """Stop everything in order, and release the data directory."""
        if self._directory is not None:
            self._addresses_file.unlink(missing_ok=True)
        try:
            await super().close()
        finally:
            await self.fork_server.close()

    @property
    def _addresses_file(self) -> Path:
        return self.directory.path / "addresses.json"

    def _further_specs(self, directory: DataDirectory, ports: Ports) -> tuple[ProcessSpec, ...]:
        self._addresses_file.unlink(missing_ok=True)
        self._applications = Applications(
            settings=self._settings,
            commands=self._commands,
            fork_server=self.fork_server,
            servers=super().addresses,
            auth_secret=directory.secrets.auth_secret,
            encryption_key=directory.secrets.encryption_key,
            mcp_home=directory.path / "mcp",
            port=self._settings.api_port or ports.of("api"),
            demo_model_port=ports.of("demo-model") if self.has_demo_model else None,
            metrics_ports={
                name: ports.of(f"{name} metrics") for name in ("api", *self._commands.workers)
            },
            # By the time that the API answers, scripts find it.
            on_api_start=lambda: self.addresses.write(self._addresses_file),
        )
        return self._applications.specs()
