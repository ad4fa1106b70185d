"""Queries that the mapper compiles once, and that then run on the driver without it.

    CompiledQuery    rows of a query whose parameters have names; `by_id` for one row of a table
    Listing          pages of a query, with filters, orders and cursors
    acting_query     one statement that is a transaction of its own, for `Database.fetch`

To build a query takes the mapper as long as Postgres takes to answer it, and to turn the rows into
objects takes longer still (docs/decisions/0025-what-a-read-may-cost.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast
from uuid import UUID

import asyncpg
from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    Label,
    Text,
    Uuid,
    and_,
    bindparam,
    tuple_,
)
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlmodel import SQLModel, col, func, select
from sqlmodel.sql.expression import SelectOfScalar
from sqlmodel.sql.sqltypes import AutoString

from schema.ids import first_id_at
from schema.pages import Page, PageRequest, decode_cursor, encode_cursor
from schema.time_ranges import TimeRange

# Ids and timestamps may come from two clocks, so ids only narrow the search: timestamps decide.
CLOCK_SLACK: Final = timedelta(days=1)

_DIALECT: Final = dialect()  # type: ignore[no-untyped-call]  # the package has no types for it

Row = TypeVar("Row", bound=SQLModel)

Filter: TypeAlias = "ColumnElement[bool] | Mapping[Any, ColumnElement[bool]]"
"""A condition with the chosen value as its parameter, or one condition for each value.

With several, the condition of None applies when no value is chosen.
"""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class AttributeRow(asyncpg.Record):
    """A row whose columns are attributes, as those of the mapper's rows are."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the column holds
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Reader(Protocol):
    """What queries are read by: a connection, or `Database.reader` for one query in one trip."""

    async def fetch(
        self,
        query: str,
        *args: Any,  # noqa: ANN401 -- parameters
        record_class: type[AttributeRow],
    ) -> list[AttributeRow]:
        """Return all rows of a query."""

    async def fetchrow(
        self,
        query: str,
        *args: Any,  # noqa: ANN401 -- as above
        record_class: type[AttributeRow],
    ) -> AttributeRow | None:
        """Return the first row of a query, if there is any."""


class CompiledQuery(Generic[Row]):
    """A query whose parameters, `bindparam`s, are named at each reading.

    Its rows are AttributeRows, which stand in for those of the table: read-only. A list of unknown
    length is an array parameter; `in_` would write it out.
    """

    def __init__(self, query: SelectOfScalar[Row]) -> None:
        compiled: Any = query.compile(dialect=_DIALECT)
        self._sql = str(compiled)
        self._names = tuple(compiled.positiontup)
        # Constants of the query itself, e.g. the 1 of `LIMIT 1`.
        self._constants = {
            name: bind.value for bind, name in compiled.bind_names.items() if not bind.required
        }

    async def all(self, reader: Reader, **parameters: object) -> list[Row]:
        """Return all rows. Errors: those of asyncpg; KeyError for a missing parameter."""
        arguments = self._arguments(parameters)
        rows = await reader.fetch(self._sql, *arguments, record_class=AttributeRow)
        return cast("list[Row]", rows)

    async def first(self, reader: Reader, **parameters: object) -> Row | None:
        """Return the first row, if any. Errors: as of `all`."""
        arguments = self._arguments(parameters)
        row = await reader.fetchrow(self._sql, *arguments, record_class=AttributeRow)
        return cast("Row | None", row)

    def _arguments(self, parameters: dict[str, object]) -> list[object]:
        given = self._constants | parameters
        return [given[name] for name in self._names]


def by_id(table: type[Row]) -> CompiledQuery[Row]:
    """Return the query for the row of a table whose `id` is the parameter."""
    columns: Any = table
    return CompiledQuery(select(table).where(col(columns.id) == bindparam("id", type_=Uuid)))


def acting_query(query: str, *, parameters: int) -> str:
    """Return the query with two more parameters, by which it sets its own actor.

    It is a transaction of its own, at whose end both settings are gone. The server evaluates the
    condition, which depends on no row, before it looks for the first row. It does so at the top of
    the plan only: policies that depend on no row are below it, since nothing is pulled out of what
    is materialized. Were it ever evaluated too late, there would be no actor, who finds nothing.

    Units: `parameters` is how many the query has of its own.
    """
    return f"""
WITH acting AS MATERIALIZED (
    SELECT set_config('everturn.actor_type', ${parameters + 1}, true) IS NOT NULL
       AND set_config('everturn.user_id', ${parameters + 2}, true) IS NOT NULL AS bound
), found AS MATERIALIZED ({query})
SELECT found.* FROM found WHERE (SELECT bound FROM acting)
"""  # noqa: S608 -- a query of ours


@dataclass(frozen=True)
class Order:
    """The order of a list: by `columns`, the last of them unique, none of them null."""

    name: str
    columns: tuple[Any, ...]
    descending: bool = False

    @property
    def cursor_name(self) -> str:
        """The name in its cursors, with the table: orders of several lists share their names."""
        return f"{self.columns[-1].class_.__tablename__} {self.name}"

    @cached_property
    def types(self) -> tuple[type, ...]:
        """The types of its columns."""
        return tuple(_python_type(column) for column in self.columns)


class Listing(Generic[Row]):
    """The rows of a query, one page at a time.

    Clients choose the values of `filters` by name, and an order. Each combination of filters,
    order and cursor is compiled once. The query may have parameters of its own.
    """

    def __init__(
        self, query: SelectOfScalar[Row], filters: Mapping[str, Filter] = _NOTHING
    ) -> None:
        self._query = query
        self._filters = filters
        self._forms: dict[tuple[object, ...], CompiledQuery[Row]] = {}

    async def read(
        self,
        reader: Reader,
        page: PageRequest,
        order: Order,
        chosen: Mapping[str, Any] = _NOTHING,
    ) -> Page[Row]:
        """Return the rows of one page.

        A filter that is None or missing in `chosen` does not apply; parameters of the query itself
        are in `chosen`, too.
        Errors: InvalidCursorError; those of asyncpg.
        """
        parameters = dict(chosen)
        if page.cursor is not None:
            last = decode_cursor(page.cursor, order.cursor_name, order.types)
            parameters |= {_last(position): value for position, value in enumerate(last)}
        query = self._form_of(order, chosen, is_first=page.cursor is None)
        # One extra row shows whether there is a next page.
        rows = await query.all(reader, **parameters, limit=page.limit + 1)
        shown = rows[: page.limit]
        if len(rows) == len(shown):
            return Page(shown, None)
        place = [getattr(shown[-1], column.key) for column in order.columns]
        return Page(shown, encode_cursor(order.cursor_name, place))

    def _form_of(
        self, order: Order, chosen: Mapping[str, Any], *, is_first: bool
    ) -> CompiledQuery[Row]:
        """Return the query for these choices, compiled at its first use."""
        picked = tuple(
            (name, chosen.get(name) if isinstance(condition, Mapping) else None)
            for name, condition in self._filters.items()
            if isinstance(condition, Mapping) or chosen.get(name) is not None
        )
        form = (order.name, is_first, picked)
        query = self._forms.get(form)
        if query is None:
            query = self._forms[form] = self._compile(order, picked, is_first=is_first)
        return query

    def _compile(
        self, order: Order, picked: tuple[tuple[str, object], ...], *, is_first: bool
    ) -> CompiledQuery[Row]:
        query = self._query
        for name, value in picked:
            condition = self._filters[name]
            if not isinstance(condition, Mapping):
                query = query.where(condition)
            elif value in condition:
                query = query.where(condition[value])
        if not is_first:
            query = query.where(_after_the_last(order))
        directed = [column.desc() if order.descending else column.asc() for column in order.columns]
        # Labels are not columns of the table: selected as well, since the next cursor needs them.
        labels = [column for column in order.columns if isinstance(column, Label)]
        ordered: Any = query.add_columns(*labels) if labels else query
        return CompiledQuery(ordered.order_by(*directed).limit(bindparam("limit", type_=Integer)))


def equals(*columns: Any) -> dict[str, ColumnElement[bool]]:  # noqa: ANN401 -- any columns
    """Return filters for equality with each of the columns, by their names."""
    return {column.key: column == bindparam(column.key, type_=column.type) for column in columns}


def contains_searched(column: Any) -> ColumnElement[bool]:  # noqa: ANN401 -- any column of text
    """Return the condition that the column contains the parameter `search`, in any case.

    No character is special. A pattern of LIKE finds the same at four times the cost, and ILIKE
    lowers its pattern at every row: this text is lowered once for a statement.
    """
    wanted = select(func.lower(bindparam("search", type_=Text))).scalar_subquery()
    return func.strpos(func.lower(col(column)), wanted) > 0


def created_within(table: type[SQLModel]) -> dict[str, ColumnElement[bool]]:
    """Return filters for a TimeRange of creation; they use the index of ids, which are UUIDv7."""
    columns: Any = table
    created, row_id = col(columns.created_at), col(columns.id)
    return {
        "since": and_(created >= _moment("since"), row_id >= _id("first_id")),
        "until": and_(created < _moment("until"), row_id < _id("end_id")),
    }


def ids_within(chosen: TimeRange) -> dict[str, UUID]:
    """Return the parameters that these filters take beside the range itself."""
    ids = {}
    if chosen.since is not None:
        ids["first_id"] = first_id_at(chosen.since - CLOCK_SLACK)
    if chosen.until is not None:
        ids["end_id"] = first_id_at(chosen.until + CLOCK_SLACK)
    return ids


def _moment(name: str) -> Any:  # noqa: ANN401 -- a parameter of SQLAlchemy's
    return bindparam(name, type_=DateTime(timezone=True))


def _id(name: str) -> Any:  # noqa: ANN401 -- as above
    return bindparam(name, type_=Uuid())


def _after_the_last(order: Order) -> ColumnElement[bool]:
    last = tuple_(
        *(bindparam(_last(i), type_=column.type) for i, column in enumerate(order.columns))
    )
    columns = tuple_(*order.columns)
    return columns < last if order.descending else columns > last


def _last(position: int) -> str:
    """Return the name of the parameter with the last page's last value of a column."""
    return f"last_{position}"


def _python_type(column: Any) -> type:  # noqa: ANN401 -- any column
    """Return the type of a column; SQLModel's own type of text does not know it."""
    held: type = str if isinstance(column.type, AutoString) else column.type.python_type
    return held
