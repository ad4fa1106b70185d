"""The fork server of `everturn dev`: imports the application once, and forks its processes.

Importing is most of what the start of a process takes, and all processes of a stack import the
same. The server is a process of its own, which forks while it has one thread, and neither an event
loop nor connections nor random state. It forks the migration as soon as it has imported what that
needs. It runs on Linux; elsewhere, and where it fails, each process starts as its command says.
"""

import asyncio
import contextlib
import gc
import importlib
import itertools
import json
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from workers.embedded.child import Child, die_with, standard_input
from workers.embedded.os_user import OsUser
from workers.startup import START_SIGNAL_VARIABLE, pause_collection

EVERTURN: Final = (sys.executable, "-m", "workers")
"""How the commands begin that are forked."""

_EARLY: Final = "migrate"
"""The command that needs little of the application, and that all others wait for."""

_MODULES: Final = (
    "workers.command_line",
    "workers.process",
    "workers.migration",
    "genai_prices.data",
    "services.embeddings.word_vectors",
    "workers.worker_process",
    "workers.composition.activities",
    "api.app",
    "workers.api_process",
    "workers.demo_model.server",
)
"""What is imported, in this order: first what migrates."""

_MESSAGE_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class _Forked:
    """A process whose parent is the fork server."""

    pid: int
    exit_code: asyncio.Future[int]

    async def wait(self) -> int:
        return await asyncio.shield(self.exit_code)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A fork server that runs, and the socket over which it is asked."""

    control: socket.socket
    process: subprocess.Popen[bytes]


class ForkServer:
    """Launches the processes of a stack; the first launch starts the server, or `begin` did."""

    def __init__(self) -> None:
        self._begun: _Begun | None = None
        self._control: socket.socket | None = None
        self._listening: asyncio.Task[None] | None = None
        self._serials = itertools.count()
        self._forking: dict[int, asyncio.Future[_Forked | None]] = {}
        self._running: dict[int, _Forked] = {}

    def begin(self) -> None:
        """Start the server, outside of an event loop: it imports for seconds."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._begun = _begin()

    async def launch(
        self,
        command: Sequence[str],
        *,
        output: int,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: OsUser | None = None,
        awaits_start_signal: bool = False,
    ) -> Child:
        """Launch a process as `Child.launch` does: forked, if it is one of Everturn's commands."""
        if sys.platform == "linux" and tuple(command[: len(EVERTURN)]) == EVERTURN:
            variables = dict(os.environ if env is None else env)
            if awaits_start_signal:
                variables[START_SIGNAL_VARIABLE] = "1"
            arguments = tuple(command[len(EVERTURN) :])
            with standard_input(awaits_start_signal=awaits_start_signal) as (source, start_signal):
                forked = await self._fork(arguments, variables, cwd, (source, output))
                if forked is not None:
                    return Child(forked, start_signal)
                if start_signal is not None:
                    os.close(start_signal)
        return await Child.launch(
            command,
            output=output,
            env=env,
            cwd=cwd,
            user=user,
            awaits_start_signal=awaits_start_signal,
        )

    async def close(self) -> None:
        """End the server, and with it what it forked and still runs."""
        if self._begun is not None:
            self._listen_to(self._begun)
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
        if self._listening is not None:
            await asyncio.wait({self._listening})

    async def _fork(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        cwd: Path | None,
        files: tuple[int, int],
    ) -> _Forked | None:
        """Return the process, or None where the server ended instead."""
        reply: asyncio.Future[_Forked | None] = asyncio.get_running_loop().create_future()
        serial = next(self._serials)
        request = {
            "serial": serial,
            "arguments": arguments,
            "env": variables,
            "cwd": str(cwd) if cwd else None,
        }
        try:
            control = self._control or self._listen_to(self._begun or _begin())
            _send(control, request, files)
        except OSError:
            return None
        self._forking[serial] = reply
        return await reply

    def _listen_to(self, begun: _Begun) -> socket.socket:
        self._begun, self._control = None, begun.control
        self._listening = asyncio.create_task(self._listen(begun))
        return begun.control

    async def _listen(self, begun: _Begun) -> None:
        """Take what the server says until it ends."""
        loop, control = asyncio.get_running_loop(), begun.control
        try:
            with contextlib.suppress(ConnectionError):
                while said := await loop.sock_recv(control, _MESSAGE_BYTES):
                    self._take(*json.loads(said))
        finally:
            # The next launch may start another server before this one has ended.
            forking, self._forking = self._forking, {}
            running, self._running = self._running, {}
            self._control = None
            control.close()
            begun.process.kill()
            await asyncio.to_thread(begun.process.wait)
            for reply in forking.values():
                if not reply.done():
                    reply.set_result(None)
            # The kernel kills them: their parent is gone.
            for forked in running.values():
                forked.exit_code.set_result(-signal.SIGKILL)

    def _take(self, serial: int, pid: int, exit_code: int | None) -> None:
        if exit_code is not None:
            self._running.pop(pid).exit_code.set_result(exit_code)
            return
        forked = _Forked(pid, asyncio.get_running_loop().create_future())
        self._running[pid] = forked
        reply = self._forking.pop(serial)
        if reply.done():  # nobody waits any more
            os.kill(pid, signal.SIGKILL)
        else:
            reply.set_result(forked)


def _begin() -> _Begun:
    """Start the server. Errors: OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    with theirs:
        process = subprocess.Popen(  # noqa: S603 -- this module
            (sys.executable, "-m", __name__, str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Forks write to their logs what they print when they print it.
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509 -- it makes one system call
        )
    return _Begun(ours, process)


def _send(control: socket.socket, request: Mapping[str, object], files: tuple[int, int]) -> None:
    """Send a request as a file, since an environment may be larger than a message."""
    with os.fdopen(os.memfd_create("request"), "w+") as described:
        json.dump(request, described)
        described.flush()
        described.seek(0)
        socket.send_fds(control, [b"fork"], [*files, described.fileno()])


class _Forking:
    """Forks a process for each request.

    Says `[serial, pid, null]` when it runs and `[serial, pid, exit code]` when it has ended.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._waiting: list[tuple[dict[str, Any], list[int]]] = []
        self._ended: dict[int, tuple[int, int]] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self, only: str | None = None) -> list[str]:
        """Serve for ever, or what has been asked of one command; return in a fork its arguments.

        Errors: SystemExit where the supervisor is gone; RuntimeError where an import started a
        thread, whose locks a fork would keep for ever.
        """
        while True:
            for wanted in [*self._waiting]:
                if only is None or wanted[0]["arguments"][0] == only:
                    self._waiting.remove(wanted)
                    if arguments := self._forked(*wanted):
                        return arguments
            events = self._selector.select(None if only is None else 0)
            if not events:
                return []
            for key, _ in events:
                self._take(key.fd)

    def _take(self, readable: int) -> None:
        if readable in self._ended:
            self._selector.unregister(readable)
            os.close(readable)
            serial, pid = self._ended.pop(readable)
            _, status = os.waitpid(pid, 0)
            said = [serial, pid, os.waitstatus_to_exitcode(status)]
            self._control.send(json.dumps(said).encode())
            return
        message, files, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 3)
        if not message:
            raise SystemExit
        with os.fdopen(files.pop()) as described:
            self._waiting.append((json.load(described), files))

    def _forked(self, wanted: dict[str, Any], files: list[int]) -> list[str]:
        """Fork; return the arguments of the command in the fork, nothing in the server."""
        if sum(1 for _ in Path("/proc/self/task").iterdir()) > 1:
            raise RuntimeError("an import started a thread")
        parent = os.getpid()
        settled, settling = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            self._control.close()
            others = [file for _, waiting in self._waiting for file in waiting]
            for file in (settled, *self._ended, *others):
                os.close(file)
            _settle(parent, wanted, files)
            os.close(settling)
            arguments: list[str] = wanted["arguments"]
            return arguments
        for file in (*files, settling):
            os.close(file)
        # Who looks for it or kills its group must find it.
        os.read(settled, 1)
        os.close(settled)
        self._ended[watched := os.pidfd_open(pid)] = wanted["serial"], pid
        self._selector.register(watched, selectors.EVENT_READ)
        self._control.send(json.dumps([wanted["serial"], pid, None]).encode())
        return []


def _settle(parent: int, wanted: Mapping[str, Any], files: list[int]) -> None:
    """Become a process of its own, with these files."""
    os.setsid()
    die_with(parent)
    source, output = files
    os.dup2(source, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(source)
    os.close(output)
    os.environ.clear()
    os.environ.update(wanted["env"])
    if wanted["cwd"] is not None:
        os.chdir(wanted["cwd"])
    sys.argv[1:] = wanted["arguments"]
    # People and tools find processes by their command. A title can't be much longer than the
    # server's own command line was: without the interpreter's folder it fits.
    from setproctitle import setproctitle  # noqa: PLC0415 -- only the extra `embedded` has it

    setproctitle(shlex.join([Path(sys.executable).name, *EVERTURN[1:], *wanted["arguments"]]))


def import_application() -> Iterator[None]:
    """Import what the processes of a stack do, and yield whenever the migration could begin."""
    pause_collection()
    # NumPy's threads are of no use to vectors this short.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for module in _MODULES:
        importlib.import_module(module)
        if "workers.migration" in sys.modules:
            yield


def main() -> None:
    """Import everything, serve until the supervisor is gone, and run a command in each fork."""
    # Only the extra `embedded` has it.
    from setproctitle import getproctitle  # noqa: PLC0415

    # Finds the memory of titles, before a fork changes its environment.
    getproctitle()
    forking = _Forking(socket.socket(fileno=int(sys.argv[1])))
    for _ in import_application():
        if arguments := forking.serve(_EARLY):
            break
    else:
        # What a collection writes to would no longer be shared.
        gc.freeze()
        arguments = forking.serve()
    from workers.command_line import app  # noqa: PLC0415 -- imported by now

    app(arguments, prog_name="everturn")


if __name__ == "__main__":
    main()
