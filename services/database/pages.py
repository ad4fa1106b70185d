"""Owns reading one page of a query: its order, its beginning, and what its next cursor is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy import tuple_
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar
from sqlmodel.sql.sqltypes import AutoString

from schema.pages import Page, PageRequest, decode_cursor, encode_cursor

Row = TypeVar("Row", bound=SQLModel)


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
    def directed(self) -> tuple[Any, ...]:
        """Its columns, each with the direction."""
        return tuple(column.desc() if self.descending else column.asc() for column in self.columns)


async def read_page(
    session: AsyncSession, query: SelectOfScalar[Row], order: Order, page: PageRequest
) -> Page[Row]:
    """Return the rows of the query that are on the page.

    Errors: InvalidCursorError.
    """
    if page.cursor is not None:
        columns = tuple_(*order.columns)
        types = [_python_type(column) for column in order.columns]
        last = tuple_(*decode_cursor(page.cursor, order.cursor_name, types))
        query = query.where(columns < last if order.descending else columns > last)
    # One row more than asked for tells whether there is a next page.
    rows = (await session.exec(query.order_by(*order.directed).limit(page.limit + 1))).all()
    shown = rows[: page.limit]
    if len(rows) == len(shown):
        return Page(shown, None)
    names = [column.key for column in order.columns]
    return Page(
        shown, encode_cursor(order.cursor_name, [getattr(shown[-1], name) for name in names])
    )


def _python_type(column: Any) -> type:  # noqa: ANN401 -- any column
    """Return what a column holds; SQLModel's own type of text does not say."""
    held: type = str if isinstance(column.type, AutoString) else column.type.python_type
    return held
