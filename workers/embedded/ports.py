"""Owns which port each server listens on: free ones, the same at every start if they still are."""

import json
import secrets
import socket
from pathlib import Path

from workers.embedded.errors import PortTakenError
from workers.embedded.files import write_private

LOOPBACK = "127.0.0.1"

# Below the range from which Linux and macOS take the ports of outgoing connections (32768 and
# 49152 up), so that no client occupies a server's port while that server restarts.
_FIRST_PORT, _LAST_PORT = 20_000, 32_000


def is_free(port: int, *, host: str = LOOPBACK) -> bool:
    """Say whether a server could listen on `port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: connections that are still closing don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free(port: int, *, host: str = LOOPBACK) -> None:
    """Refuse a port that is taken.

    Errors: PortTakenError names it.
    """
    if not is_free(port, host=host):
        raise PortTakenError(host, port)


class Ports:
    """The ports of one stack on loopback, remembered in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._remembered: dict[str, int] = _read(file)
        self._chosen: dict[str, int] = {}

    def of(self, name: str, *, preferred: int | None = None) -> int:
        """Return the port of `name`: the remembered one, the preferred one, or any free one."""
        if name not in self._chosen:
            self._chosen[name] = self._choose((self._remembered.get(name), preferred))
            self._remember()
        return self._chosen[name]

    def _choose(self, wanted: tuple[int | None, ...]) -> int:
        for port in wanted:
            if port is not None and self._is_available(port):
                return port
        while True:
            port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT)
            if self._is_available(port):
                return port

    def _is_available(self, port: int) -> bool:
        return port not in self._chosen.values() and is_free(port)

    def _remember(self) -> None:
        write_private(self._file, json.dumps(self._remembered | self._chosen, indent=2))


def _read(file: Path) -> dict[str, int]:
    try:
        stored = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {name: int(port) for name, port in stored.items()}
