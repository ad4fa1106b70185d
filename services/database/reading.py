"""Owns queries that the mapper puts together once, and that are read without it ever after.

To put a query together takes the mapper as long as Postgres takes to answer it, and to make its
objects out of the rows takes longer than that (docs/decisions/0025-what-a-read-may-cost.md).
"""

from typing import Any, Final, Generic, TypeVar, cast

import asyncpg
from sqlalchemy import Uuid, bindparam
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlmodel import SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from services.database.plain import Connection

_DIALECT: Final = dialect()  # type: ignore[no-untyped-call]  # the package has no types for it

Row = TypeVar("Row", bound=SQLModel)


class AttributeRow(asyncpg.Record):
    """A row whose columns are attributes as of the mapper's rows, for what takes those."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the column holds
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class CompiledQuery(Generic[Row]):
    """A query whose parameters, `bindparam`s, are given by name at each reading.

    Its rows are AttributeRows, which stand in for those of the table: they can be read, and not
    changed. A list of unknown length is a parameter of an array; `in_` would write it out.
    """

    def __init__(self, query: SelectOfScalar[Row]) -> None:
        compiled: Any = query.compile(dialect=_DIALECT)
        self._sql = str(compiled)
        self._names = tuple(compiled.positiontup)
        # What the query holds of its own, as the 1 of `LIMIT 1`.
        self._constants = {
            name: bind.value for bind, name in compiled.bind_names.items() if not bind.required
        }

    async def all(self, connection: Connection, **parameters: object) -> list[Row]:
        """Return all rows. Errors: those of asyncpg; KeyError without one of its parameters."""
        arguments = self._arguments(parameters)
        rows = await connection.fetch(self._sql, *arguments, record_class=AttributeRow)
        return cast("list[Row]", rows)

    async def first(self, connection: Connection, **parameters: object) -> Row | None:
        """Return the first row, if there is any. Errors: as of `all`."""
        arguments = self._arguments(parameters)
        row = await connection.fetchrow(self._sql, *arguments, record_class=AttributeRow)
        return cast("Row | None", row)

    def _arguments(self, parameters: dict[str, object]) -> list[object]:
        given = self._constants | parameters
        return [given[name] for name in self._names]


def by_id(table: type[Row]) -> CompiledQuery[Row]:
    """Return the query for the row of a table whose `id` is the parameter."""
    columns: Any = table
    return CompiledQuery(select(table).where(col(columns.id) == bindparam("id", type_=Uuid)))
