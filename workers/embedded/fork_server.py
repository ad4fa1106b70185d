"""The fork server of `everturn dev`: imports the application once, and forks its processes.

Importing is most of what the start of a process takes, and all processes of a stack import the
same. The server is a process of its own, which forks while it has one thread, and neither an event
loop nor connections nor random state. It runs on Linux; elsewhere, and where it fails, each process
starts as its command says.
"""

import asyncio
import contextlib
import gc
import importlib
import json
import os
import selectors
import shlex
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from workers.embedded.child import Child, die_with, standard_input
from workers.embedded.os_user import OsUser
from workers.startup import START_SIGNAL_VARIABLE, pause_collection

EVERTURN: Final = (sys.executable, "-m", "workers")
"""How the commands begin that are forked."""

_MODULES: Final = (
    "services.embeddings.word_vectors",
    "workers.api_process",
    "workers.composition.activities",
    "workers.demo_model.server",
    "workers.migration",
    "workers.process",
    "workers.worker_process",
)
_MESSAGE_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class _Forked:
    """A process whose parent is the fork server."""

    pid: int
    exit_code: asyncio.Future[int]

    async def wait(self) -> int:
        return await asyncio.shield(self.exit_code)


class ForkServer:
    """Launches the processes of a stack; the first launch starts the server."""

    def __init__(self) -> None:
        self._starting: asyncio.Task[socket.socket] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._forking: deque[asyncio.Future[_Forked | None]] = deque()
        self._running: dict[int, _Forked] = {}

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
        if self._starting is None:
            return
        with contextlib.suppress(OSError):
            (await self._starting).shutdown(socket.SHUT_RDWR)
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
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(variables))
        try:
            control = await asyncio.shield(self._starting)
        except OSError:
            self._starting = None
            return None
        reply: asyncio.Future[_Forked | None] = asyncio.get_running_loop().create_future()
        request = {"arguments": arguments, "env": variables, "cwd": str(cwd) if cwd else None}
        try:
            _send(control, request, files)
        except OSError:
            return None
        self._forking.append(reply)
        return await reply

    async def _start(self, variables: Mapping[str, str]) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __name__, str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=variables,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid()),
            )
        self._listening = asyncio.create_task(self._listen(ours, process))
        return ours

    async def _listen(self, control: socket.socket, process: asyncio.subprocess.Process) -> None:
        """Take what the server says until it ends."""
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(ConnectionError):
                while said := await loop.sock_recv(control, _MESSAGE_BYTES):
                    self._take(*json.loads(said))
        finally:
            # The next launch may start another server before this one has ended.
            forking, self._forking = self._forking, deque()
            running, self._running = self._running, {}
            self._starting = None
            control.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            for reply in forking:
                if not reply.done():
                    reply.set_result(None)
            # The kernel kills them: their parent is gone.
            for forked in running.values():
                forked.exit_code.set_result(-signal.SIGKILL)

    def _take(self, pid: int, exit_code: int | None) -> None:
        if exit_code is not None:
            self._running.pop(pid).exit_code.set_result(exit_code)
            return
        forked = _Forked(pid, asyncio.get_running_loop().create_future())
        self._running[pid] = forked
        reply = self._forking.popleft()
        if reply.done():  # nobody waits any more
            os.kill(pid, signal.SIGKILL)
        else:
            reply.set_result(forked)


def _send(control: socket.socket, request: Mapping[str, object], files: tuple[int, int]) -> None:
    """Send a request as a file, since an environment may be larger than a message."""
    with os.fdopen(os.memfd_create("request"), "w+") as described:
        json.dump(request, described)
        described.flush()
        described.seek(0)
        socket.send_fds(control, [b"fork"], [*files, described.fileno()])


def _serve(control: socket.socket) -> list[str]:
    """Fork a process for each request; return the arguments of its command, in that process alone.

    Says `[pid, null]` when it runs and `[pid, exit code]` when it has ended.
    Errors: SystemExit where nobody asks any more.
    """
    ended: dict[int, int] = {}
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd in ended:
                selector.unregister(key.fd)
                os.close(key.fd)
                pid = ended.pop(key.fd)
                _, status = os.waitpid(pid, 0)
                control.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())
                continue
            message, files, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 3)
            if not message:
                raise SystemExit
            parent = os.getpid()
            settled, settling = os.pipe()
            pid = os.fork()
            if pid == 0:
                selector.close()
                control.close()
                for file in (settled, *ended):
                    os.close(file)
                return _settle(parent, files, settling)
            for file in (*files, settling):
                os.close(file)
            # Who looks for it or kills its group must find it.
            os.read(settled, 1)
            os.close(settled)
            ended[watched := os.pidfd_open(pid)] = pid
            selector.register(watched, selectors.EVENT_READ)
            control.send(json.dumps([pid, None]).encode())


def _settle(parent: int, files: list[int], settling: int) -> list[str]:
    """Become a process of its own, with these files; return the arguments of its command."""
    os.setsid()
    die_with(parent)
    source, output, described = files
    os.dup2(source, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(source)
    os.close(output)
    with os.fdopen(described) as request:
        wanted = json.load(request)
    os.environ.clear()
    os.environ.update(wanted["env"])
    if wanted["cwd"] is not None:
        os.chdir(wanted["cwd"])
    arguments: list[str] = wanted["arguments"]
    sys.argv[1:] = arguments
    # People and tools find processes by their command. A title can't be much longer than the
    # server's own command line was: without the interpreter's folder it fits.
    from setproctitle import setproctitle  # noqa: PLC0415

    setproctitle(shlex.join([Path(sys.executable).name, *EVERTURN[1:], *arguments]))
    os.close(settling)
    return arguments


def import_application() -> None:
    """Import what the processes of a stack do.

    Errors: RuntimeError where that started a thread, whose locks a fork would keep for ever.
    """
    pause_collection()
    # NumPy's threads are of no use to vectors this short.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for module in _MODULES:
        importlib.import_module(module)
    if sum(1 for _ in Path("/proc/self/task").iterdir()) > 1:
        raise RuntimeError("an import started a thread")


def main() -> None:
    """Import everything, serve until the supervisor is gone, and run a command in each fork."""
    import_application()
    # Not with the rest of the module: only the extra `embedded` has it.
    from setproctitle import getproctitle  # noqa: PLC0415

    from workers.command_line import app  # noqa: PLC0415

    # Finds the memory of titles, before a fork changes its environment.
    getproctitle()
    # What a collection writes to would no longer be shared.
    gc.freeze()
    app(_serve(socket.socket(fileno=int(sys.argv[1]))), prog_name="everturn")


if __name__ == "__main__":
    main()
