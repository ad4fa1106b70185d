"""Addresses of MCP servers: what is needed to connect to one, with its secrets decrypted.

Does not import the SDK, so that callers that don't connect need not wait for that import.
"""

import json
import os
import stat
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus

from schema.tables import McpServerRow
from services.mcp.errors import McpServerError
from services.tools.masks import SecretMask, configured_secrets, secrets_of_url
from services.tools.secrets import SecretVault

DEFAULT_MEMORY_BYTES: Final = 1024 * 1024 * 1024
DEFAULT_PROCESSES: Final = 256
_PRIVATE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long connecting may take, and listing the tools with it. Units: seconds."""

    connect_s: float = 10.0
    whole_s: float = 30.0


@dataclass(frozen=True, slots=True, repr=False)
class OAuthClient:
    """Client credentials for a server. Without a `token_url`, it is discovered."""

    client_id: str
    client_secret: str
    token_url: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ServerAddress:
    """How to connect to a server, including its secrets.

    `secrets` are the environment of a process or the headers of requests. A process runs in
    `home`; with all that it starts it may use `memory_bytes`, and be `processes` at a time.
    """

    command: str | None
    args: tuple[str, ...]
    url: str | None
    secrets: Mapping[str, str]
    oauth: OAuthClient | None = None
    home: Path | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    processes: int = DEFAULT_PROCESSES

    def mask(self, *tokens: str) -> SecretMask:
        """Return what takes the secrets, and tokens that were issued for them, out of texts."""
        secrets = [*configured_secrets(self.secrets), *secrets_of_url(self.url or ""), *tokens]
        if self.oauth is not None:
            # As it is, and as it stands in the header that asks for a token.
            secrets += [self.oauth.client_secret, quote_plus(self.oauth.client_secret)]
        return SecretMask(secrets)


class HomeDirectories:
    """A private directory for each server, kept between its runs.

    Programs that install themselves when they start, such as `npx`, would otherwise do so each
    time.
    """

    def __init__(self, base: Path | None = None) -> None:
        """Take the parent directory; by default one in the system's temporary directory."""
        self._base = base or Path(tempfile.gettempdir(), f"everturn-mcp-{os.getuid()}")

    def create(self, name: str) -> Path:
        """Return a server's directory, created if need be.

        Errors: McpServerError if it can't be created, or is not private.
        """
        try:
            _make_private(self._base)
            home = self._base / name
            _make_private(home)
        except OSError as error:
            raise McpServerError(
                f"The server's home directory can't be used: {error.strerror}."
            ) from error
        return home


def _make_private(directory: Path) -> None:
    """Create a directory, or check that an existing one is ours alone and not a link."""
    directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(0, "it is a link or belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        directory.chmod(_PRIVATE)


class ServerSecrets:
    """Encrypts and decrypts the secrets of a server's row."""

    def __init__(self, vault: SecretVault) -> None:
        self._vault = vault

    @property
    def has_key(self) -> bool:
        """Whether secrets can be stored."""
        return self._vault.has_key

    def seal(self, server: str, secrets: Mapping[str, str]) -> bytes | None:
        """Return an environment or headers, encrypted; None if there are none."""
        if not secrets:
            return None
        return self._vault.seal(json.dumps(dict(secrets)).encode(), owner=_owner(server))

    def seal_oauth(self, server: str, client_secret: str) -> bytes:
        """Return an OAuth client secret, encrypted."""
        return self._vault.seal(client_secret.encode(), owner=_oauth_owner(server))

    def open(self, row: McpServerRow) -> dict[str, str]:
        """Return a server's environment or headers. Errors: UnreadableSecretError."""
        if row.secrets is None:
            return {}
        secrets: dict[str, str] = json.loads(self._vault.open(row.secrets, owner=_owner(row.name)))
        return secrets

    def open_oauth(self, row: McpServerRow) -> OAuthClient | None:
        """Return a server's client credentials. Errors: UnreadableSecretError."""
        if row.oauth is None or row.oauth_secret is None:
            return None
        return OAuthClient(
            client_id=row.oauth["client_id"],
            client_secret=self._vault.open(row.oauth_secret, owner=_oauth_owner(row.name)).decode(),
            token_url=row.oauth.get("token_url"),
            scope=row.oauth.get("scope"),
        )


def _owner(server: str) -> str:
    return f"mcp_server:{server}"


def _oauth_owner(server: str) -> str:
    return f"mcp_server_oauth:{server}"


class ServerAddresses:
    """Reads addresses from rows; of processes only those that run one of `commands`, if any."""

    def __init__(
        self,
        vault: SecretVault,
        homes: HomeDirectories,
        *,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        processes: int = DEFAULT_PROCESSES,
        commands: Collection[str] = (),
    ) -> None:
        self._commands = commands
        self._secrets = ServerSecrets(vault)
        self._homes = homes
        self._memory_bytes = memory_bytes
        self._processes = processes

    def address_of(self, row: McpServerRow) -> ServerAddress:
        """Return how to connect to the row's server.

        Errors: UnreadableSecretError; McpServerError for another command, or if it can't have a
        home directory.
        """
        if self._commands and row.command is not None and row.command not in self._commands:
            raise McpServerError(
                f"{row.command} is not among the commands of EVERTURN_MCP_COMMANDS."
            )
        return ServerAddress(
            command=row.command,
            args=tuple(row.args),
            url=row.url,
            secrets=self._secrets.open(row),
            oauth=self._secrets.open_oauth(row),
            home=None if row.command is None else self._homes.create(row.name),
            memory_bytes=self._memory_bytes,
            processes=self._processes,
        )
