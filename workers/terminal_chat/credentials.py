"""Owns the tokens of the signed-in person, in a file that only its owner can read.

The file is read anew for each use, so that another terminal's refreshed tokens are found.
"""

import os
import tempfile
from pathlib import Path

import typer
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError, field_serializer

from workers.terminal_chat.errors import CredentialFileError


class Credentials(BaseModel):
    """Whose tokens these are, and the tokens."""

    email: str
    access_token: SecretStr
    refresh_token: SecretStr

    @field_serializer("access_token", "refresh_token", when_used="json")
    def _reveal(self, token: SecretStr) -> str:
        return token.get_secret_value()


_FILE = TypeAdapter(dict[str, Credentials])


def credentials_path() -> Path:
    """Return where this platform wants an application to keep a person's credentials."""
    return Path(typer.get_app_dir("everturn")) / "credentials.json"


class CredentialFile:
    """The entry of one API address in the file of credentials."""

    def __init__(self, path: Path, *, url: str) -> None:
        self._path = path
        self._url = url

    def load(self) -> Credentials | None:
        """Return the credentials for this address, or None where there are none."""
        return self._entries().get(self._url)

    def save(self, credentials: Credentials) -> None:
        """Keep `credentials` for this address in place of earlier ones."""
        self._write({**self._entries(), self._url: credentials})

    def forget(self) -> None:
        """Drop the credentials for this address."""
        self._write({url: kept for url, kept in self._entries().items() if url != self._url})

    def _entries(self) -> dict[str, Credentials]:
        try:
            return _FILE.validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return {}
        except OSError as error:
            raise CredentialFileError(str(error)) from error

    def _write(self, entries: dict[str, Credentials]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # mkstemp makes the file 0600 from the start; the rename never shows half a file.
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".credentials-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(_FILE.dump_json(entries, indent=2))
            Path(name).replace(self._path)
        except OSError as error:
            raise CredentialFileError(str(error)) from error
