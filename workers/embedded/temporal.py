"""Owns the embedded Temporal: the development server of its command line, with the UI."""

import sys
from dataclasses import dataclass
from pathlib import Path

from workers.embedded.data_directory import DataDirectory
from workers.embedded.ports import LOOPBACK
from workers.embedded.probes import fetch_json
from workers.embedded.processes import ProcessSpec

DEFAULT_NAMESPACE = "default"
SEARCH_ATTRIBUTES = {
    "EverturnUserId": "Keyword",
    "EverturnChatId": "Keyword",
    "EverturnModel": "Keyword",
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
            name="temporal", command=self._command(), prepare=self._prepare, ready=self._is_ready
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
            # The client configuration of whoever runs this has no say in the server.
            f"--env-file={self._database.with_name('none.yaml')}",
            "--disable-config-file",
            "--disable-config-env",
            *(f"--namespace={name}" for name in self.namespaces),
            *attributes,
        )

    @property
    def _database(self) -> Path:
        return self.directory.path / "temporal" / "temporal.db"

    async def _prepare(self) -> None:
        self.directory.folder("temporal")

    async def _is_ready(self) -> bool:
        """Say whether every namespace has every search attribute; the UI passes the question on."""
        for namespace in (DEFAULT_NAMESPACE, *self.namespaces):
            url = f"{self.ui}/api/v1/namespaces/{namespace}/search-attributes"
            attributes = (await fetch_json(url)).get("customAttributes")
            if (
                not isinstance(attributes, dict)
                or not SEARCH_ATTRIBUTES.keys() <= attributes.keys()
            ):
                return False
        return True
