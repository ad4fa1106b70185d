"""Owns how a person is shown lists and things: tables, without what a terminal would obey."""

import json
from collections.abc import Mapping, Sequence
from typing import Final, TextIO, TypeAlias

from pydantic import JsonValue
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workers.terminal_chat.wording import harmless

Columns: TypeAlias = Mapping[str, str]
"""The headings of a table, each with where its value is in a row, as `usage.inputTokens`."""

_WIDTH_OF_FILES: Final = 200
_NOTHING: Final = "-"


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


def print_table(stream: TextIO, table: Table) -> None:
    """Print a table; files are wide, so that nothing in them is cut."""
    width = None if stream.isatty() else _WIDTH_OF_FILES
    Console(file=stream, force_terminal=stream.isatty(), width=width, highlight=False).print(table)


def _value(row: JsonValue, where: str) -> JsonValue:
    value = row
    for part in where.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _cell(value: JsonValue) -> Text:
    return Text(harmless(_said(value)), overflow="fold")


def _said(value: JsonValue) -> str:
    match value:
        case None | "" | [] | {}:
            return _NOTHING
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
