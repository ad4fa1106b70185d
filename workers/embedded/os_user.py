"""The OS user that Postgres runs as, and its access to the files.

Postgres refuses to run as root. An ordinary user runs it as themselves, and nothing here does
anything; root runs it as another user, who must be able to pass through the folders above.
"""

import contextlib
import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from workers.embedded.errors import NoPassageError, NoServerUserError

_OWN_USER = "embedded_postgres"
_SUBSTITUTES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class OsUser:
    """An OS user to run a process as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def from_entry(cls, entry: pwd.struct_passwd) -> Self:
        """Take the user from the password database."""
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def owns(self, path: Path) -> bool:
        """Return whether `path` belongs to this user."""
        return path.stat().st_uid == self.uid

    def may_pass(self, folder: Path) -> bool:
        """Return whether this user may pass through `folder` to a known name in it."""
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def server_user(cluster: Path) -> OsUser | None:
    """Return the user to run Postgres as, None for the current user.

    Errors: NoServerUserError for root on a system without any other user.
    """
    if os.geteuid() != 0:
        return None
    if cluster.exists() and cluster.stat().st_uid != 0:
        return OsUser.from_entry(pwd.getpwuid(cluster.stat().st_uid))
    return _own_user() or _existing_user()


def let_through(user: OsUser, path: Path) -> list[Path]:
    """Let `user` pass through the folders above `path`; return those that had to change.

    Only folders that are closed to the user change, and only by o+x: what is in them can't be
    listed, and keeps its own permissions.
    Errors: NoPassageError where a folder can't be changed.
    """
    closed = [folder for folder in path.resolve().parents if not user.may_pass(folder)]
    for folder in closed:
        try:
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
        except OSError as reason:
            raise NoPassageError(user.name, folder) from reason
    return closed


def make_readable(package: Path, program: Path) -> None:
    """Open an installed package that a strict umask has closed to others."""
    if program.stat().st_mode & stat.S_IXOTH:
        return
    libraries = package.with_name(f"{package.name}.libs")
    for top in (package, libraries):
        for path in (top, *top.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            executable = stat.S_IXOTH if mode & stat.S_IXUSR else 0
            path.chmod(mode | stat.S_IROTH | executable)


def _own_user() -> OsUser | None:
    existing = _first_of((_OWN_USER,))
    if existing is not None:
        return existing
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        # Fails without useradd, and where another start has just created the user.
        command = ["useradd", "--system", _OWN_USER]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return _first_of((_OWN_USER,))


def _existing_user() -> OsUser:
    user = _first_of(_SUBSTITUTES)
    if user is None:
        raise NoServerUserError
    return user


def _first_of(names: tuple[str, ...]) -> OsUser | None:
    entries = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next((OsUser.from_entry(entries[name]) for name in names if name in entries), None)
