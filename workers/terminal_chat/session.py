"""What a run of a terminal client works with, and how its errors are worded for a person."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from everturn_client import (
    APIConnectionError,
    AuthenticationError,
    BudgetExceededError,
    Everturn,
    EverturnError,
    SessionExpiredError,
)
from workers.terminal_chat.credentials import CredentialFile, TerminalError
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.screen import Screen

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

# A wait of more than a few seconds is reported instead: the person may decide.
_LONGEST_WAIT_S = 5.0
_DEFAULT_URL: Final = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Session:
    """One run of a client. Answers are streamed on a loop of their own; all else blocks."""

    client: Everturn
    credentials: CredentialFile
    screen: Screen
    keyboard: Keyboard

    @property
    def url(self) -> str:
        """Where the API is."""
        return self.client.base_url


def api_origin(url: str | None, data_dir: Path) -> str:
    """Return the given URL, or that of `everturn dev`, or the default."""
    origin = (url or _written_down(data_dir) or _DEFAULT_URL).rstrip("/")
    return origin if "://" in origin else f"http://{origin}"


@contextmanager
def open_session(url: str, screen: Screen) -> Iterator[Session]:
    """Open a session with the API at `url`. Errors: TerminalError for an invalid URL."""
    path = Path(typer.get_app_dir("everturn")) / "credentials.json"
    credentials = CredentialFile(path, url=url)
    try:
        client = Everturn(url, token_store=credentials, max_retry_after_s=_LONGEST_WAIT_S)
    except ValueError as error:
        raise TerminalError(f"{error}.") from None
    with client:
        yield Session(client, credentials, screen, Keyboard())


def _written_down(data_dir: Path) -> str | None:
    """Return the URL in `addresses.json`, if a development stack is running."""
    try:
        addresses = json.loads((data_dir / "addresses.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    origin = addresses.get("api") if isinstance(addresses, dict) else None
    return origin if isinstance(origin, str) else None


def sentence_of(error: EverturnError | TerminalError) -> str:
    """Return an error as a person reads it."""
    match error:
        case APIConnectionError():
            return (
                f"Can't reach {error.url}. Start it with `make dev` or `everturn dev`, "
                "or pass another address with --url."
            )
        case SessionExpiredError():
            return "Your session has expired."
        case AuthenticationError():
            return "You are not signed in."
        case BudgetExceededError():
            return error.message
        case _:
            return str(error)
