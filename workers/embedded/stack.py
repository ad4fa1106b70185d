"""Owns all of `everturn dev`: the embedded servers and our own processes on top of them."""

from pathlib import Path

from services.settings import Settings
from workers.embedded.addresses import StackAddresses
from workers.embedded.applications import Applications, Commands
from workers.embedded.data_directory import DataDirectory
from workers.embedded.logs import Terminal
from workers.embedded.ports import Ports, require_free
from workers.embedded.processes import ProcessSpec
from workers.embedded.servers import EmbeddedServers


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
    ) -> None:
        super().__init__(data_dir, ephemeral=ephemeral, terminal=terminal)
        self._settings = settings
        self._commands = commands or Commands()
        self._applications: Applications | None = None

    @property
    def has_demo_model(self) -> bool:
        """Whether the model is the demo, for want of a key."""
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
        """The database as its superuser, for whoever arranges something in it."""
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
        """Stop everything in order, and give the data directory back."""
        if self._directory is not None:
            self._addresses_file.unlink(missing_ok=True)
        await super().close()

    @property
    def _addresses_file(self) -> Path:
        return self.directory.path / "addresses.json"

    def _further_specs(self, directory: DataDirectory, ports: Ports) -> tuple[ProcessSpec, ...]:
        self._addresses_file.unlink(missing_ok=True)
        self._applications = Applications(
            settings=self._settings,
            commands=self._commands,
            servers=super().addresses,
            auth_secret=directory.secrets.auth_secret,
            encryption_key=directory.secrets.encryption_key,
            mcp_home=directory.path / "mcp",
            port=self._settings.api_port or ports.of("api"),
            demo_model_port=ports.of("demo-model") if self.has_demo_model else None,
            metrics_ports={name: ports.of(f"{name} metrics") for name in self._commands.workers},
            # By the time that the API answers, scripts find it.
            on_api_start=lambda: self.addresses.write(self._addresses_file),
        )
        return self._applications.specs()
