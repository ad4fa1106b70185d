"""Which folders are opened to the user that Postgres runs as, and how far."""

import stat
from pathlib import Path

import pytest

from workers.embedded.os_user import OsUser, let_through, make_readable, server_user

STRANGER = OsUser("stranger", 54321, 54321)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_closed_folders_are_opened_and_only_to_pass(tmp_path: Path) -> None:
    closed, listable = tmp_path / "closed", tmp_path / "closed" / "listable"
    data = listable / "data"
    data.mkdir(parents=True)
    closed.chmod(0o700)
    listable.chmod(0o755)
    data.chmod(0o700)

    changed = let_through(STRANGER, data)

    assert closed in changed
    assert [mode(closed), mode(listable), mode(data)] == [0o701, 0o755, 0o700]
    assert let_through(STRANGER, data) == []


def test_a_package_closed_by_a_strict_umask_is_opened(tmp_path: Path) -> None:
    package, libraries = tmp_path / "postgres", tmp_path / "postgres.libs"
    program, library = package / "bin" / "postgres", libraries / "libpq.so"
    for file in (program, library):
        file.parent.mkdir(parents=True)
        file.touch()
    program.chmod(0o700)
    library.chmod(0o600)

    make_readable(package, program)

    assert mode(program) == 0o705
    assert mode(library) == 0o604


def test_an_ordinary_user_runs_postgres_as_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert server_user(tmp_path) is None
