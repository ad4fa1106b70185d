"""The output of processes: to a log file each, and for some to the terminal as well."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

_ROTATE_ABOVE_BYTES = 10 * 1024 * 1024
_TAIL_LINES = 20
_TAIL_BYTES = 16 * 1024
_STYLES = ("cyan", "green", "yellow", "magenta", "blue")


class Terminal:
    """The terminal of the supervisor; one that has gone away is no error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=False)
        self._prefixes: dict[str, str] = {}
        self._gone = False

    def introduce(self, names: list[str]) -> None:
        """Prepare an aligned prefix for each of the processes that write here."""
        width = max(map(len, names), default=0)
        for index, name in enumerate(names):
            style = _STYLES[index % len(_STYLES)]
            self._prefixes[name] = self._rendered(Text(f"{name:<{width}} │ ", style=style))

    def say(self, sentence: str) -> None:
        """Print a line of the supervisor's own, however long."""
        self._write(self._rendered(Text(sentence, style="bold")) + "\n")

    def plain(self, text: str) -> None:
        """Print text as it is, for pasting."""
        self._write(text + "\n")

    def show(self, renderable: RenderableType) -> None:
        """Print a table, or anything else that rich can lay out."""
        with self._console.capture() as captured:
            self._console.print(renderable)
        self._write(captured.get())

    def line(self, name: str, text: str) -> None:
        """Print a line that a process wrote, as it is, behind the name of the process."""
        self._write(f"{self._prefixes.get(name, '')}{text}\n")

    def _rendered(self, text: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(text, end="", soft_wrap=True)
        return captured.get()

    def _write(self, text: str) -> None:
        if self._gone:
            return
        try:
            self._console.file.write(text)
            self._console.file.flush()
        except (OSError, ValueError):
            # A closed window or pipe must not keep the processes from being stopped.
            self._gone = True


class ProcessLog:
    """The log file of one process, and its way to the terminal if it has one."""

    def __init__(self, name: str, folder: Path, terminal: Terminal | None = None) -> None:
        self.name = name
        self.path = folder / f"{name}.log"
        self._terminal = terminal
        self._pumps: set[_LinePump] = set()
        if self.path.exists() and self.path.stat().st_size > _ROTATE_ABOVE_BYTES:
            self.path.replace(self.path.with_suffix(".log.1"))

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[int]:
        """Open what a child gets as its output; the child has inherited it at the exit."""
        descriptor = self._file() if self._terminal is None else await self._pipe(self._terminal)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def tail(self) -> str:
        """Return the last lines."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    async def drain(self) -> None:
        """Wait a moment for what a process that has ended wrote last."""
        if self._pumps:
            # Bounded: a descendant that outlived the process may hold the pipe open.
            await asyncio.wait([pump.closed for pump in self._pumps], timeout=1.0)
        for pump in list(self._pumps):
            pump.close()

    def _file(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def _pipe(self, terminal: Terminal) -> int:
        reader, writer = os.pipe()
        pump = _LinePump(self.name, self._file(), terminal)
        self._pumps.add(pump)
        pump.closed.add_done_callback(lambda _: self._pumps.discard(pump))
        await asyncio.get_running_loop().connect_read_pipe(lambda: pump, os.fdopen(reader, "rb"))
        return writer


class _LinePump(asyncio.Protocol):
    """Copies what a child writes to its log file, and line by line to the terminal."""

    def __init__(self, name: str, log: int, terminal: Terminal) -> None:
        self._name = name
        self._log = log
        self._terminal = terminal
        self._unfinished = b""
        self._transport: asyncio.BaseTransport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the process that writes
            os.write(self._log, data)
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            self._show(line)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._unfinished:
            self._show(self._unfinished)
        os.close(self._log)
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _show(self, line: bytes) -> None:
        self._terminal.line(self._name, line.decode(sys.stdout.encoding or "utf-8", "replace"))
