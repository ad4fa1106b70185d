"""Owns running the API in several processes behind one port.

This process accepts every connection and hands it to the next of them in turn. Listeners of their
own on the port would get connections by chance, and whoever came to the fuller process would wait
longer. A process that dies is started anew; the others take its turns meanwhile.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog
import uvicorn
from prometheus_client.multiprocess import mark_process_dead

from services.setup_errors import SetupError

_log = structlog.get_logger(__name__)

CHANNEL_VARIABLE: Final = "EVERTURN_CONNECTION_CHANNEL"
_METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_PAUSE_S: Final = 1.0
_COMMAND: Final = (sys.executable, "-m", "workers", "api")
_READY: Final = b"r"
_CONNECTION: Final = b"c"


class ApiProcessFailedError(SetupError):
    """A process of the API ended before it was asked to; what it said stands above."""

    def __init__(self, status: int) -> None:
        super().__init__(f"A process of the API could not start (status {status}).")


def inherited_channel() -> socket.socket | None:
    """Return the channel over which this process gets its connections, if it is one of several."""
    number = os.environ.get(CHANNEL_VARIABLE)
    return None if number is None else socket.socket(fileno=int(number))


def end_with_parent(stop: Callable[[], object]) -> None:
    """Call `stop` once whoever started this process is gone: its end of our input closes."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            loop.remove_reader(sys.stdin.fileno())
            stop()

    loop.add_reader(sys.stdin.fileno(), look)


class HandedServer(uvicorn.Server):
    """Serves the connections that it is handed; its one socket is the channel of `_Handing`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._beginning: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so to whoever accepts."""
        await super().startup(sockets=[])
        for channel in sockets or ():
            channel.settimeout(0)
            asyncio.get_running_loop().add_reader(channel, self._take, channel)
            # Where it is gone, `end_with_parent` ends this process too.
            with suppress(BrokenPipeError):
                channel.send(_READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more, and end those that are there."""
        for channel in sockets or ():
            asyncio.get_running_loop().remove_reader(channel)
        await super().shutdown(sockets)

    def _take(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        word, numbers, _, _ = socket.recv_fds(channel, 1, 1)
        if not word:
            # Whoever accepts is gone, and will be noticed by `end_with_parent`.
            loop.remove_reader(channel)
        for number in numbers:
            begun = loop.create_task(
                loop.connect_accepted_socket(self._protocol, socket.socket(fileno=number))
            )
            self._beginning.add(begun)
            begun.add_done_callback(self._beginning.discard)

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


class _Handing:
    """Accepts connections, and hands each to the next process that is ready."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._ready: deque[socket.socket] = deque()

    def join(self, channel: socket.socket) -> None:
        """Let a process have its turns. Who connects while there is none waits for one."""
        self._ready.append(channel)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def leave(self, channel: socket.socket) -> None:
        """Let a process have no more, if it had any."""
        with suppress(ValueError):
            self._ready.remove(channel)
        if not self._ready:
            asyncio.get_running_loop().remove_reader(self._listener)

    def _accept(self) -> None:
        # Who connected may be gone again, and a process that ended is not known for it yet.
        with suppress(OSError), self._listener.accept()[0] as connection:
            for _ in range(len(self._ready)):
                self._ready.rotate(-1)
                with suppress(OSError):
                    socket.send_fds(self._ready[0], [_CONNECTION], [connection.fileno()])
                    return


async def serve_in_processes(listener: socket.socket, count: int) -> None:
    """Run `count` processes until SIGINT or SIGTERM.

    Errors: ApiProcessFailedError where one can't even start.
    """
    listener.settimeout(0)
    handing = _Handing(listener)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        with _counting_together():
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(_keep_running(handing, stop))
    except* ApiProcessFailedError as failed:
        raise failed.exceptions[0] from None


async def _keep_running(handing: _Handing, stop: asyncio.Event) -> None:
    has_served = False
    while not stop.is_set():
        channel, other_end = socket.socketpair()
        with channel:
            with other_end:
                process = await _started(other_end)
            ended = await _handed_until_either(handing, channel, process, stop)
        # What it was measuring as it died is measured no more.
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # it has no types
        if stop.is_set():
            return
        if not has_served and ended == 1:
            raise ApiProcessFailedError(ended)
        has_served = True
        _log.error("api_process_ended", status=ended)
        await asyncio.sleep(_PAUSE_S)


async def _started(channel: socket.socket) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *_COMMAND,
        stdin=asyncio.subprocess.PIPE,
        pass_fds=[channel.fileno()],
        env={**os.environ, CHANNEL_VARIABLE: str(channel.fileno())},
    )


async def _handed_until_either(
    handing: _Handing,
    channel: socket.socket,
    process: asyncio.subprocess.Process,
    stop: asyncio.Event,
) -> int:
    """Hand connections to the process until it has ended, which it is asked to once all are."""
    channel.settimeout(0)
    loop = asyncio.get_running_loop()

    def on_word() -> None:
        # Its one word is that it is ready; the next thing to be read is that it has ended.
        loop.remove_reader(channel)
        if channel.recv(1):
            handing.join(channel)

    loop.add_reader(channel, on_word)
    ending = asyncio.ensure_future(process.wait())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(channel)
        handing.leave(channel)
        stopping.cancel()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    return await ending


@contextmanager
def _counting_together() -> Iterator[None]:
    """Have the processes count into files of one folder, so that each can tell the sum."""
    with tempfile.TemporaryDirectory(prefix="everturn-metrics-") as folder:
        os.environ[_METRICS_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[_METRICS_VARIABLE]
