"""Owns how a server is reached: what its row says, with its secrets opened.

Imports nothing of the package `mcp`, so that whoever only asks need not wait for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schema.tables import McpServerRow
from services.mcp.homes import ServerHomes
from services.mcp.rows import oauth_owner, secret_owner, secrets_from_bytes
from services.tools.secrets import SecretVault

DEFAULT_MEMORY_BYTES: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a server may take to be connected to, and to list its tools. Units: seconds."""

    connect_s: float = 10.0
    whole_s: float = 30.0


@dataclass(frozen=True, slots=True, repr=False)
class OAuthClient:
    """Who gets tokens for a server, by client credentials.

    Without a `token_url`, the server says where tokens are to be had.
    """

    client_id: str
    client_secret: str
    token_url: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ServerAddress:
    """How to speak with a server, its secrets included.

    `secrets` are the environment of a process or the headers of requests. A process lives in
    `home`, and may use `memory_bytes` with all that it starts.
    """

    command: str | None
    args: tuple[str, ...]
    url: str | None
    secrets: Mapping[str, str]
    oauth: OAuthClient | None = None
    home: Path | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES

    def without_secrets(self, words: str) -> str:
        """Return words of the server without the secrets, should it have repeated one."""
        secrets = [*self.secrets.values(), self.oauth.client_secret if self.oauth else ""]
        for secret in sorted(secrets, key=len, reverse=True):
            if secret:
                words = words.replace(secret, "…")
        return words


class ServerAddresses:
    """Makes addresses of rows."""

    def __init__(
        self, vault: SecretVault, homes: ServerHomes, *, memory_bytes: int = DEFAULT_MEMORY_BYTES
    ) -> None:
        self._vault = vault
        self._homes = homes
        self._memory_bytes = memory_bytes

    def of(self, row: McpServerRow) -> ServerAddress:
        """Return how the row's server is reached.

        Errors: UnreadableSecretError; McpServerError where it can't have a home.
        """
        sealed, owner = row.secrets, secret_owner(row.name)
        return ServerAddress(
            command=row.command,
            args=tuple(row.args),
            url=row.url,
            secrets={} if sealed is None else secrets_from_bytes(self._open(sealed, owner)),
            oauth=self._oauth_of(row),
            home=None if row.command is None else self._homes.of(row.name),
            memory_bytes=self._memory_bytes,
        )

    def _oauth_of(self, row: McpServerRow) -> OAuthClient | None:
        if row.oauth is None or row.oauth_secret is None:
            return None
        return OAuthClient(
            client_id=row.oauth["client_id"],
            client_secret=self._open(row.oauth_secret, oauth_owner(row.name)).decode(),
            token_url=row.oauth.get("token_url"),
            scope=row.oauth.get("scope"),
        )

    def _open(self, sealed: bytes, owner: str) -> bytes:
        return self._vault.open(sealed, owner=owner)
