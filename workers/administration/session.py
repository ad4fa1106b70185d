"""A run of a command: signed in, with lookups by name, and output as tables or JSON."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO, TypeAlias, TypeVar
from uuid import UUID

import typer
from pydantic import JsonValue
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from everturn_client import EverturnError, Pages
from everturn_client.admin import Admin
from everturn_client.admin_models import AdministeredTool
from everturn_client.models import Resource
from everturn_client.runners import Blocking
from workers.terminal_chat.credentials import TerminalError
from workers.terminal_chat.screen import PlainScreen, harmless
from workers.terminal_chat.session import (
    INTERRUPTED,
    Session,
    api_origin,
    open_session,
    sentence_of,
)
from workers.terminal_chat.sign_in import SignIn

Row: TypeAlias = dict[str, Any]
Columns: TypeAlias = Mapping[str, str]
"""The headings of a table, each with its value's place in a row, e.g. `usage.inputTokens`."""

ResourceT = TypeVar("ResourceT", bound=Resource)

_WIDTH_OF_FILES: Final = 200
_ALL: Final = 10_000


class Administration:
    """The API under `/admin`, and the output of a command."""

    def __init__(self, session: Session) -> None:
        self.api: Admin[Blocking] = session.client.admin

    def user_id(self, user: str) -> str:
        """Return the id of a user, given as such or as an email. Errors: TerminalError."""
        return self._id_of(user, "user", self.api.users.list(search=user), by="email")

    def plan_id(self, plan: str) -> str:
        """Return the id of a plan, given as such or as a name. Errors: TerminalError."""
        return self._id_of(plan, "plan", self.api.plans.list(), by="name")

    def prompt_id(self, prompt: str) -> str:
        """Return the id of a prompt, given as such or as a name. Errors: TerminalError."""
        return self._id_of(prompt, "prompt", self.api.prompts.list(), by="name")

    def tool(self, name: str) -> AdministeredTool:
        """Return a tool. Errors: TerminalError."""
        for tool in self.api.tools.list(limit=100):
            if tool.name == name:
                return tool
        raise TerminalError(f"Tool {name} not found.")

    def latest_turn(self, *, user: str | None, status: str | None) -> str:
        """Return the id of the latest turn, of all or of a user. Errors: TerminalError."""
        owner = None if user is None else self.user_id(user)
        for turn in self.api.turns.list(user_id=owner, status=status).first(1):
            return turn.id
        raise TerminalError("No turn matches.")

    def print(self, report: RenderableType) -> None:
        """Print what a command has composed itself."""
        _print_rich(sys.stdout, report)

    def show(self, resource: Resource, *, as_json: bool) -> None:
        """Print one resource: a line for each field, or JSON."""
        if as_json:
            _print_json(_row(resource))
        else:
            _print_rich(sys.stdout, facts_table(_row(resource)))

    def show_rows(
        self,
        resources: Iterable[Resource],
        columns: Columns,
        *,
        as_json: bool,
        title: str | None = None,
    ) -> None:
        """Print a list: a table, or JSON."""
        rows = [_row(resource) for resource in resources]
        if as_json:
            _print_json(rows)
        else:
            _print_rich(sys.stdout, rows_table(rows, columns, title=title))

    def _id_of(self, named: str, kind: str, listed: Pages[ResourceT], *, by: str) -> str:
        if _is_id(named):
            return named
        rows = [_row(resource) for resource in listed.first(_ALL)]
        ids = [row["id"] for row in rows if str(row[by]).lower() == named.lower()]
        if len(ids) != 1:
            raise TerminalError(f"No {kind} has the {by} {named}.")
        return str(ids[0])


@contextmanager
def open_administration(
    url: str | None, data_dir: Path, *, email: str | None
) -> Iterator[Administration]:
    """Sign in as `everturn chat` does; an error is a sentence and the exit code 1.

    Errors: typer.Exit.
    """
    screen = PlainScreen(answers=sys.stdout, lines=sys.stderr)
    try:
        with open_session(api_origin(url, data_dir), screen) as session:
            SignIn(session, email=email).ensure()
            yield Administration(session)
    except (EverturnError, TerminalError) as error:
        screen.line(sentence_of(error), style="red")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def rows_table(rows: Sequence[JsonValue], columns: Columns, *, title: str | None = None) -> Table:
    """Return a table with a line for each row."""
    table = Table(*columns, box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_cell(_value(row, where)) for where in columns.values()))
    return table


def facts_table(thing: Mapping[str, JsonValue]) -> Table:
    """Return a table with a line for each field."""
    table = Table(box=None, show_header=False)
    for name, value in thing.items():
        table.add_row(Text(harmless(name), style="bold"), _cell(value))
    return table


def _print_rich(stream: TextIO, report: RenderableType) -> None:
    """Print a table, or several; files are wide, so that nothing in them is cut."""
    width = None if stream.isatty() else _WIDTH_OF_FILES
    Console(file=stream, force_terminal=stream.isatty(), width=width, highlight=False).print(report)


def _print_json(value: Row | Sequence[Row]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def _row(resource: Resource) -> Row:
    """Return a resource as the API sent it."""
    return resource.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _value(row: JsonValue, where: str) -> JsonValue:
    value = row
    for part in where.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _cell(value: JsonValue) -> Text:
    return Text(harmless(_shown(value)), overflow="fold")


def _shown(value: JsonValue) -> str:
    # No `case {}`: as a pattern, it matches every object.
    if value is None or value in ("", [], {}):
        return "-"
    match value:
        case True:
            return "yes"
        case False:
            return "no"
        case str():
            return value
        case list() if all(isinstance(part, str) for part in value):
            return ", ".join(map(str, value))
        case _:
            return json.dumps(value, ensure_ascii=False)


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
