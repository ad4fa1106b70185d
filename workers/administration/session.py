"""Owns one run of a command: signed in, its requests, and what it prints on which stream."""

import json
import sys
from asyncio import Runner
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import httpx2
import typer
from pydantic import JsonValue

from workers.administration.api import AdministrationApi, NotFoundError, Row
from workers.administration.tables import Columns, facts_table, print_table, rows_table
from workers.administration.target import Target
from workers.api_address import api_origin
from workers.terminal_chat.credentials import CredentialFile, credentials_path
from workers.terminal_chat.errors import ChatClientError
from workers.terminal_chat.keyboard import Keyboard
from workers.terminal_chat.plain_screen import PlainScreen
from workers.terminal_chat.session import Session
from workers.terminal_chat.sign_in import SignIn

_INTERRUPTED = 130
_ALL = 10_000


class Administration:
    """The API for commands, which are plain code. Errors: ChatClientError."""

    def __init__(self, api: AdministrationApi, session: Session) -> None:
        self._api = api
        self._session = session

    def rows(self, path: str, *, limit: int, **chosen: str | None) -> list[Row]:
        """Return the first rows of a list."""
        return self._session.wait_for(self._api.rows(path, limit=limit, **chosen))

    def send(self, method: str, *path: str, body: Mapping[str, JsonValue] | None = None) -> Row:
        """Send a request about one thing, and return it."""
        return self._session.wait_for(self._api.send(method, *path, body=body))

    def user_id(self, who: str) -> str:
        """Return the id of a user who is named by it, or by their e-mail address."""
        return self._session.wait_for(self._api.user_id(who))

    def plan_id(self, which: str) -> str:
        """Return the id of a plan that is named by it, or by its name."""
        return self._session.wait_for(self._api.plan_id(which))

    def named(self, path: str, name: str) -> Row:
        """Return the row of a list that has this name."""
        for row in self.rows(path, limit=_ALL):
            if row["name"] == name:
                return row
        raise NotFoundError(f"There is no {name} among the {path}.")

    def show(self, thing: Row, *, as_json: bool) -> None:
        """Print one thing: a line for each field, or as JSON."""
        if as_json:
            _print_json(thing)
        else:
            print_table(sys.stdout, facts_table(thing))

    def show_rows(
        self, rows: Sequence[Row], columns: Columns, *, as_json: bool, title: str | None = None
    ) -> None:
        """Print a list: as a table, or as JSON."""
        if as_json:
            _print_json(rows)
        else:
            print_table(sys.stdout, rows_table(rows, columns, title=title))


@contextmanager
def open_administration(target: Target) -> Iterator[Administration]:
    """Sign in as `everturn chat` does; a failure is a sentence and the exit code 1.

    Errors: typer.Exit.
    """
    screen = PlainScreen(answers=sys.stdout, lines=sys.stderr)
    origin = api_origin(target.url, target.data_dir)
    try:
        api = AdministrationApi(origin, CredentialFile(credentials_path(), url=origin))
        with Runner() as runner:
            session = Session(api, screen, Keyboard(), runner)
            try:
                SignIn(session, email=target.email).ensure()
                yield Administration(api, session)
            finally:
                runner.run(api.aclose())
    except ChatClientError as error:
        screen.line(str(error), style="red")
        raise typer.Exit(1) from None
    except httpx2.InvalidURL:
        screen.line(f"{origin} is no address.", style="red")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _print_json(value: Row | Sequence[Row]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
