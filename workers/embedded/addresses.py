"""The addresses of a running stack, and the file in which scripts find them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from workers.embedded.data_directory import write_private


@dataclass(frozen=True, slots=True, repr=False)
class ServerAddresses:
    """Where the servers are; `database` (as the application's role) and `redis` hold passwords."""

    database: str
    migration_database: str
    redis: str
    temporal: str
    temporal_ui: str


@dataclass(frozen=True, slots=True, repr=False)
class StackAddresses(ServerAddresses):
    """Where everything that `everturn dev` runs is; `api` is an origin without a path.

    `metrics` are URLs of Prometheus metrics by the process's name.
    """

    api: str
    model: str
    metrics: Mapping[str, str] = field(default_factory=dict)

    @property
    def docs(self) -> str:
        """Where the API describes itself."""
        return f"{self.api}/docs"

    def write(self, file: Path) -> None:
        """Write the addresses for scripts, readable by their owner alone."""
        addresses = {
            "api": self.api,
            "docs": self.docs,
            "temporal": self.temporal,
            "temporalUi": self.temporal_ui,
            "database": self.database,
            "redis": self.redis,
            "model": self.model,
            "metrics": dict(self.metrics),
        }
        write_private(file, json.dumps(addresses, indent=2) + "\n")


def without_password(url: str) -> str:
    """Return `url` as it may be shown on a terminal."""
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    return parts._replace(netloc=f"{user}{parts.hostname}:{parts.port}").geturl()
