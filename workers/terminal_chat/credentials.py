"""The tokens of the signed-in person, in a file that only its owner can read.

The file is read again for each request, so that tokens refreshed by another terminal are found.
"""

import os
import tempfile
from pathlib import Path

from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError, field_serializer

from everturn_client import Tokens
from everturn_client.models import Session


class TerminalError(Exception):
    """An error of this program, worded for the person who runs it."""


class CredentialFileError(TerminalError):
    """The tokens can't be read or kept."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Can't store credentials: {reason}.")


class Credentials(BaseModel):
    """The tokens of an account."""

    email: str
    access_token: SecretStr
    refresh_token: SecretStr

    @field_serializer("access_token", "refresh_token", when_used="json")
    def _reveal(self, token: SecretStr) -> str:
        return token.get_secret_value()


_FILE = TypeAdapter(dict[str, Credentials])


class CredentialFile:
    """The entry of one API in the file: a token store of the client."""

    def __init__(self, path: Path, *, url: str) -> None:
        self._path = path
        self._url = url

    @property
    def email(self) -> str | None:
        """Whose tokens are kept, or None when signed out."""
        kept = self._entries().get(self._url)
        return kept.email if kept else None

    def load(self) -> Tokens | None:
        """Return the tokens, or None when signed out."""
        kept = self._entries().get(self._url)
        if kept is None:
            return None
        return Tokens(access_token=kept.access_token, refresh_token=kept.refresh_token)

    def save(self, session: Session) -> None:
        """Keep the tokens of a sign-in or a refresh in place of earlier ones."""
        kept = Credentials(
            email=session.user.email or "",
            access_token=session.access_token,
            refresh_token=session.refresh_token,
        )
        self._write({**self._entries(), self._url: kept})

    def clear(self) -> None:
        """Forget the tokens."""
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
