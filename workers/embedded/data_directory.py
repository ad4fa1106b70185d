"""The data directory of a stack: its place, its lock, its secrets and who may enter it."""

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Self

from workers.embedded.errors import DataDirectoryInUseError, DataDirectoryNotWritableError


def write_private(path: Path, text: str) -> None:
    """Replace `path` at once by a file of mode 0600, so that no reader sees half of it."""
    # mkstemp creates with mode 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


DEFAULT_PATH = Path(".everturn")


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """Random secrets of this data directory, safe in URLs as they are."""

    postgres_superuser: str
    postgres_application: str
    valkey: str
    auth_secret: str
    encryption_key: str

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read the secrets; generate and store those that are missing."""
        stored = json.loads(file.read_text()) if file.exists() else {}
        loaded = cls(**{f.name: stored.get(f.name) or _random() for f in fields(cls)})
        if asdict(loaded) != stored:
            write_private(file, json.dumps(asdict(loaded), indent=2))
        return loaded


class DataDirectory:
    """A locked data directory: `open` creates and locks it, `close` releases it."""

    def __init__(self, path: Path, *, ephemeral: bool, lock: int) -> None:
        self.path = path
        self.ephemeral = ephemeral
        self._lock: int | None = lock

    @classmethod
    def open(cls, path: Path | None = None, *, ephemeral: bool = False) -> Self:
        """Create the directory where it is missing, and lock it.

        Errors: DataDirectoryNotWritableError; DataDirectoryInUseError while another process,
        which the error names, has it open.
        """
        if ephemeral:
            path = Path(tempfile.mkdtemp(prefix="everturn-"))
        path = (path or DEFAULT_PATH).absolute()
        with _writable(path):
            # World-readable parents are the user's choice, this folder never is.
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        _acquire(lock, path)
        return cls(path, ephemeral=ephemeral, lock=lock)

    @property
    def secrets_file(self) -> Path:
        """Where the secrets are kept, readable by their owner alone."""
        return self.path / "secrets.json"

    @cached_property
    def secrets(self) -> Secrets:
        """The secrets of this directory, generated at first use."""
        with _writable(self.path):
            return Secrets.load(self.secrets_file)

    def folder(self, name: str) -> Path:
        """Return a folder inside, created for its owner alone.

        Errors: DataDirectoryNotWritableError.
        """
        with _writable(self.path):
            folder = self.path / name
            folder.mkdir(mode=0o700, exist_ok=True)
            return folder

    def admit_group(self, group: int) -> None:
        """Let only the members of `group` pass through; they can't list it."""
        os.chown(self.path, -1, group)
        self.path.chmod(0o710)

    def close(self) -> None:
        """Unlock the directory; an ephemeral one is removed."""
        if self._lock is None:
            return
        if self.ephemeral:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def _acquire(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode().strip() or "unknown"
        os.close(lock)
        raise DataDirectoryInUseError(path, holder) from None
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as reason:
        raise DataDirectoryNotWritableError(path, reason) from reason


def _random() -> str:
    return secrets.token_urlsafe(32)
