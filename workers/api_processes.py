"""Owns running the API in several processes, each with a socket of its own on the same port.

The kernel spreads connections over the sockets, which stay open here: a process that dies is
started anew, and who connects meanwhile waits for it.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import structlog

from services.mistakes import SetupError

_log = structlog.get_logger(__name__)

SOCKET_VARIABLE: Final = "EVERTURN_INHERITED_SOCKET"
_METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_PAUSE_S: Final = 1.0
_COMMAND: Final = (sys.executable, "-m", "workers", "api")


class ApiProcessFailedError(SetupError):
    """A process of the API ended before it was asked to; what it said stands above."""

    def __init__(self, status: int) -> None:
        super().__init__(f"A process of the API could not start (status {status}).")


def inherited_socket() -> socket.socket | None:
    """Return the socket that this process was started with, if it is one of several."""
    number = os.environ.get(SOCKET_VARIABLE)
    return None if number is None else socket.socket(fileno=int(number))


def end_with_parent(stop: Callable[[], object]) -> None:
    """Call `stop` once whoever started this process is gone: its end of our input closes."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            loop.remove_reader(sys.stdin.fileno())
            stop()

    loop.add_reader(sys.stdin.fileno(), look)


async def serve_in_processes(listener: socket.socket, count: int) -> None:
    """Run `count` processes until SIGINT or SIGTERM.

    Errors: ApiProcessFailedError where one can't even start.
    """
    with ExitStack() as stack:
        stack.enter_context(_counting_together())
        sockets = [listener, *(stack.enter_context(_beside(listener)) for _ in range(count - 1))]
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with asyncio.TaskGroup() as group:
            for one in sockets:
                group.create_task(_keep_running(one, stop))


async def _keep_running(own: socket.socket, stop: asyncio.Event) -> None:
    has_served = False
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[own.fileno()],
            env={**os.environ, SOCKET_VARIABLE: str(own.fileno())},
        )
        ended = await _until_either(process, stop)
        if stop.is_set():
            return
        if not has_served and ended == 1:
            raise ApiProcessFailedError(ended)
        has_served = True
        _log.error("api_process_ended", status=ended)
        await asyncio.sleep(_PAUSE_S)


async def _until_either(process: asyncio.subprocess.Process, stop: asyncio.Event) -> int:
    """Wait until the process has ended, which it is asked to once all are to stop."""
    ending = asyncio.ensure_future(process.wait())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    return await ending


@contextmanager
def _beside(listener: socket.socket) -> Iterator[socket.socket]:
    """Open one more socket on the address of another."""
    with open_shared(listener.family, listener.getsockname()) as opened:
        yield opened


def open_shared(family: socket.AddressFamily | int, address: Sequence[object]) -> socket.socket:
    """Return a listening socket that leaves room for others on its port. Errors: OSError."""
    host, port = str(address[0]), int(str(address[1]))
    return socket.create_server(
        (host, port), family=socket.AddressFamily(family), backlog=2048, reuse_port=True
    )


@contextmanager
def _counting_together() -> Iterator[None]:
    """Have the processes count into files of one folder, so that each can tell the sum."""
    with tempfile.TemporaryDirectory(prefix="everturn-metrics-") as folder:
        os.environ[_METRICS_VARIABLE] = folder
        yield
