"""Ports of the servers: free ones, the same at every start where possible; and probes.

Probes ask a server over a plain socket whether it answers yet. They run every 30 ms while servers
start, in a process that is to start quickly itself: importing an HTTP client would take longer than
all probes.
"""

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from workers.embedded.data_directory import write_private
from workers.embedded.errors import PortTakenError

LOOPBACK = "127.0.0.1"

# Below the range from which Linux and macOS take the ports of outgoing connections (32768 and
# 49152 up), so that no client occupies a server's port while that server restarts.
_FIRST_PORT, _LAST_PORT = 20_000, 32_000


def is_free(port: int, *, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on `port` now."""
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


_TIMEOUT_S: Final = 2.0


async def accepts(port: int, *, host: str = LOOPBACK) -> bool:
    """Return whether something takes connections on `port`."""
    return await ask(port, b"", host=host) is not None


async def answers(url: str) -> bool:
    """Return whether a GET of `url` is answered with 200."""
    return await _get(url) is not None


async def fetch_json(url: str) -> Mapping[str, object]:
    """GET `url` as a JSON object, an empty one unless it is answered with 200."""
    body = await _get(url)
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


async def ask(port: int, question: bytes, *, host: str = LOOPBACK) -> bytes | None:
    """Send `question` and return what comes back until the server closes; None without a server.

    An empty question is answered with nothing, as soon as the connection is accepted.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                if not question:
                    return b""
                writer.write(question)
                return await reader.read()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:
        return None


async def _get(url: str) -> bytes | None:
    """Return the body of a 200, None for any other answer or without one."""
    parts = urlsplit(url)
    # HTTP/1.0: the server closes behind the body, which then needs no decoding.
    request = f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
    answer = await ask(parts.port or 80, request.encode(), host=parts.hostname or LOOPBACK)
    head, _, body = (answer or b"").partition(b"\r\n\r\n")
    return body if head.split(b" ", 2)[1:2] == [b"200"] else None
