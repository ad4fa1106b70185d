"""Child processes: each run of a command, and the record of all of them."""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import psutil

from workers.embedded.data_directory import write_private
from workers.embedded.os_user import OsUser
from workers.startup import START_SIGNAL_VARIABLE

_PR_SET_PDEATHSIG = 1
# Looked up here: a child between fork and exec should do little.
_C_LIBRARY = ctypes.CDLL(None)


class Process(Protocol):
    """What is needed of a process, whichever process is its parent."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    async def wait(self) -> int:
        """Wait until it has ended; return its exit code, that of a signal being negative."""
        ...


class Child:
    """A process in a separate session, so that Ctrl-C reaches only the supervisor.

    `start_signal` is the pipe to its standard input, if it awaits the signal.
    """

    def __init__(self, process: Process, start_signal: int | None) -> None:
        self._process = process
        self._start_signal = start_signal
        self.pid = process.pid

    @classmethod
    async def launch(
        cls,
        command: Sequence[str],
        *,
        output: int,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: OsUser | None = None,
        awaits_start_signal: bool = False,
    ) -> Self:
        """Start `command` with its output going to the file descriptor `output`.

        Errors: OSError where the program is missing or may not be run.
        """
        if awaits_start_signal:
            env = {**(os.environ if env is None else env), START_SIGNAL_VARIABLE: "1"}
        with standard_input(awaits_start_signal=awaits_start_signal) as (source, start_signal):
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=source,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid()),
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        return cls(process, start_signal)

    def send_start_signal(self) -> None:
        """Let a process go on that awaits the signal."""
        if self._start_signal is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._start_signal, b"\n")
            self._close_start_signal()

    async def wait(self) -> int:
        """Wait until it has ended, then end what it left behind; return its exit code."""
        try:
            return await self._process.wait()
        finally:
            self.kill()
            self._close_start_signal()

    async def end(self, stop_signal: signal.Signals, grace: timedelta) -> None:
        """Ask it to stop, kill it after `grace`, and kill what is left of it."""
        descendants = self._descendants()
        # To the leader alone, which ends its own children in its own order.
        self._send(stop_signal, os.kill)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds()):
                await self._process.wait()
        self.kill()
        _kill_all(descendants)
        await self._process.wait()

    def kill_leader(self) -> None:
        """Kill the process alone, not its group."""
        self._send(signal.SIGKILL, os.kill)

    def kill(self) -> None:
        """Kill the whole process group."""
        self._send(signal.SIGKILL, os.killpg)

    def _send(self, number: signal.Signals, send: Callable[[int, int], None]) -> None:
        # macOS answers with PermissionError for a group of which only zombies are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(self.pid, number)

    def _close_start_signal(self) -> None:
        if self._start_signal is not None:
            os.close(self._start_signal)
            self._start_signal = None

    def _descendants(self) -> list[psutil.Process]:
        """Return those below, since some (the backends of Postgres) leave the group."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return []


def _kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        # psutil compares creation times, so a reused process id is safe.
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def standard_input(*, awaits_start_signal: bool) -> Iterator[tuple[int, int | None]]:
    """Yield what a child reads, and the pipe through which the start signal reaches it.

    The pipe is left open, unless the launch fails.
    """
    if awaits_start_signal:
        source, start_signal = os.pipe()
    else:
        source, start_signal = os.open(os.devnull, os.O_RDONLY), None
    try:
        yield source, start_signal
    except BaseException:
        if start_signal is not None:
            os.close(start_signal)
        raise
    finally:
        os.close(source)


def die_with(parent: int) -> None:
    """Make the kernel end this process when its parent is gone, kill -9 included.

    Runs in the child after the change of user, which would clear the setting. The signal comes
    when the thread that forked ends: processes are to be launched from the main thread.
    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform != "linux":
        return
    _C_LIBRARY.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the line above


# psutil derives creation times from the time of boot, which moves when the clock is set.
_CLOCK_TOLERANCE_S = 2.0
_KILL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Identity:
    """What makes a process this one, and not a later one with the same id."""

    pid: int
    created: float
    executable: str


class ProcessRegister:
    """Keeps `processes.json` (name to process id) and `identities.json` up to date."""

    def __init__(self, folder: Path) -> None:
        self._processes_file = folder / "processes.json"
        self._identities_file = folder / "identities.json"
        self._identities: dict[str, _Identity] = {}

    def add(self, name: str, pid: int) -> None:
        """Record that `name` now is process `pid`."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            self._identities[name] = _Identity(pid, process.create_time(), process.exe())
            self._write()

    def remove(self, name: str) -> None:
        """Record that `name` does not run."""
        if self._identities.pop(name, None) is not None:
            self._write()

    def close(self) -> None:
        """Remove the files: nothing runs any more."""
        self._processes_file.unlink(missing_ok=True)
        self._identities_file.unlink(missing_ok=True)

    def end_leftovers(self) -> list[str]:
        """Kill what a supervisor that died has left; return the names of what was still there.

        Only processes with the recorded id, creation time and program, and the sessions that
        they lead, are touched.
        """
        left = {name: _remains(identity) for name, identity in self._stored().items()}
        victims = [process for remains in left.values() for process in remains]
        for process in victims:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(victims, timeout=_KILL_TIMEOUT_S)
        return [name for name, remains in left.items() if remains]

    def _stored(self) -> dict[str, _Identity]:
        try:
            stored = json.loads(self._identities_file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {name: _Identity(**identity) for name, identity in stored.items()}

    def _write(self) -> None:
        pids = {name: identity.pid for name, identity in self._identities.items()}
        identities = {name: asdict(identity) for name, identity in self._identities.items()}
        write_private(self._identities_file, json.dumps(identities))
        write_private(self._processes_file, json.dumps(pids))


def _remains(identity: _Identity) -> list[psutil.Process]:
    """Return the recorded process, its descendants and the rest of its session."""
    try:
        leader = psutil.Process(identity.pid)
        if not _is_same(leader, identity):
            return []
        below = leader.children(recursive=True)
    except psutil.NoSuchProcess:
        return list(_session(identity.pid))
    except psutil.AccessDenied:
        return []
    return [leader, *below]


def _is_same(process: psutil.Process, identity: _Identity) -> bool:
    return (
        abs(process.create_time() - identity.created) < _CLOCK_TOLERANCE_S
        and process.exe() == identity.executable
    )


def _session(leader: int) -> Iterator[psutil.Process]:
    """Yield what is left of a session whose leader is gone.

    The kernel reuses no process id while a session has it, so these are ours.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == leader:
                yield process
