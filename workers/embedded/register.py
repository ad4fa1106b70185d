"""Owns the record of running processes: for scripts, and for the start after a kill -9."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from workers.embedded.files import write_private

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

    The kernel gives a process id to nobody while a session has it, so these are ours.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == leader:
                yield process
