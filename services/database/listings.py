"""Owns lists: what they can be narrowed by, their orders, one page of them, the next one's cursor.

What clients choose picks one of a few forms of a list's query; each is put together once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Generic, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Integer, Label, bindparam, tuple_
from sqlmodel import SQLModel
from sqlmodel.sql.expression import SelectOfScalar
from sqlmodel.sql.sqltypes import AutoString

from schema.pages import Page, PageRequest, decode_cursor, encode_cursor
from services.database.plain import Connection
from services.database.reading import CompiledQuery

Row = TypeVar("Row", bound=SQLModel)

Narrowing: TypeAlias = "ColumnElement[bool] | Mapping[Any, ColumnElement[bool]]"
"""A condition with the chosen value as its parameter, or one condition for each value.

With several, that of None is for when nothing is chosen.
"""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Order:
    """The order of a list: by `columns`, the last of them unique, none of them null."""

    name: str
    columns: tuple[Any, ...]
    descending: bool = False

    @property
    def cursor_name(self) -> str:
        """What its cursors are told by from those of other lists: orders share their names."""
        return f"{self.columns[-1].class_.__tablename__} {self.name}"

    @cached_property
    def types(self) -> tuple[type, ...]:
        """What its columns hold."""
        return tuple(_python_type(column) for column in self.columns)


class Listing(Generic[Row]):
    """The rows of a query, a page at a time.

    `narrowings` are named by what clients choose; the query may have parameters of its own.
    """

    def __init__(
        self, query: SelectOfScalar[Row], narrowings: Mapping[str, Narrowing] = _NOTHING
    ) -> None:
        self._query = query
        self._narrowings = narrowings
        self._forms: dict[tuple[object, ...], CompiledQuery[Row]] = {}

    async def read(
        self,
        connection: Connection,
        page: PageRequest,
        order: Order,
        chosen: Mapping[str, Any] = _NOTHING,
    ) -> Page[Row]:
        """Return the rows that are on the page.

        What is chosen by nobody is None, or not there; parameters of the query are named beside.
        Errors: InvalidCursorError; those of asyncpg.
        """
        parameters = dict(chosen)
        if page.cursor is not None:
            last = decode_cursor(page.cursor, order.cursor_name, order.types)
            parameters |= {_last(position): value for position, value in enumerate(last)}
        query = self._form_of(order, chosen, is_first=page.cursor is None)
        # One row more than asked for tells whether there is a next page.
        rows = await query.all(connection, **parameters, limit=page.limit + 1)
        shown = rows[: page.limit]
        if len(rows) == len(shown):
            return Page(shown, None)
        place = [getattr(shown[-1], column.key) for column in order.columns]
        return Page(shown, encode_cursor(order.cursor_name, place))

    def _form_of(
        self, order: Order, chosen: Mapping[str, Any], *, is_first: bool
    ) -> CompiledQuery[Row]:
        """Return the query for what is chosen, put together when it is asked for first."""
        picked = tuple(
            (name, chosen.get(name) if isinstance(narrowing, Mapping) else None)
            for name, narrowing in self._narrowings.items()
            if isinstance(narrowing, Mapping) or chosen.get(name) is not None
        )
        form = (order.name, is_first, picked)
        query = self._forms.get(form)
        if query is None:
            query = self._forms[form] = self._put_together(order, picked, is_first=is_first)
        return query

    def _put_together(
        self, order: Order, picked: tuple[tuple[str, object], ...], *, is_first: bool
    ) -> CompiledQuery[Row]:
        query = self._query
        for name, value in picked:
            condition = self._narrowings[name]
            if not isinstance(condition, Mapping):
                query = query.where(condition)
            elif value in condition:
                query = query.where(condition[value])
        if not is_first:
            query = query.where(_behind_the_last(order))
        directed = [column.desc() if order.descending else column.asc() for column in order.columns]
        # What is not a column of the table is told beside them: the next cursor holds it.
        beside = [column for column in order.columns if isinstance(column, Label)]
        ordered: Any = query.add_columns(*beside) if beside else query
        return CompiledQuery(ordered.order_by(*directed).limit(bindparam("limit", type_=Integer)))


def equals(*columns: Any) -> dict[str, ColumnElement[bool]]:  # noqa: ANN401 -- any columns
    """Return the narrowings to a value of each of the columns, by their names."""
    return {column.key: column == bindparam(column.key, type_=column.type) for column in columns}


def _behind_the_last(order: Order) -> ColumnElement[bool]:
    last = tuple_(
        *(bindparam(_last(i), type_=column.type) for i, column in enumerate(order.columns))
    )
    columns = tuple_(*order.columns)
    return columns < last if order.descending else columns > last


def _last(position: int) -> str:
    """Return the name of the parameter that is the last page's last value of a column."""
    return f"last_{position}"


def _python_type(column: Any) -> type:  # noqa: ANN401 -- any column
    """Return what a column holds; SQLModel's own type of text does not say."""
    held: type = str if isinstance(column.type, AutoString) else column.type.python_type
    return held
