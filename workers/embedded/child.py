"""Owns one run of a command: how it is started, and that nothing of it stays behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

import psutil

from workers.embedded.os_user import OsUser
from workers.start_signal import START_SIGNAL_VARIABLE

_PR_SET_PDEATHSIG = 1


class Child:
    """A process in a session of its own, so that Ctrl-C reaches only the supervisor."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
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
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if awaits_start_signal else asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
        return cls(process)

    def send_start_signal(self) -> None:
        """Tell a process that awaits it that it may go on."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(b"\n")
            self._process.stdin.close()

    async def wait(self) -> int:
        """Wait until it has ended, then end what it left behind; return its exit code."""
        try:
            return await self._process.wait()
        finally:
            self.kill()

    async def end(self, stop_signal: signal.Signals, patience: timedelta) -> None:
        """Ask it to stop, kill it when `patience` is over, and kill what is left of it."""
        descendants = self._descendants()
        # To the leader alone, which ends its own children in its own order.
        self._send(stop_signal, os.kill)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                await self._process.wait()
        self.kill()
        _kill_all(descendants)
        await self._process.wait()

    def kill_leader(self) -> None:
        """Kill the process alone, as somebody outside would."""
        self._send(signal.SIGKILL, os.kill)

    def kill(self) -> None:
        """Kill the whole process group."""
        self._send(signal.SIGKILL, os.killpg)

    def _send(self, number: signal.Signals, send: Callable[[int, int], None]) -> None:
        # macOS answers with PermissionError for a group of which only zombies are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(self.pid, number)

    def _descendants(self) -> list[psutil.Process]:
        """Return those below, since some (the backends of Postgres) leave the group."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return []


def _kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        # psutil compares creation times, so a process id that was given out again is safe.
        with contextlib.suppress(psutil.Error):
            process.kill()


def _die_with(parent: int) -> Callable[[], None] | None:
    """Make the kernel end the child when the supervisor is gone, kill -9 included.

    Runs in the child after the change of user, which would clear the setting. The signal comes
    when the thread that forked ends: processes are to be launched from the main thread.
    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the supervisor died before the line above

    return bind
