"""Owns queries that the mapper puts together once, and that are read without it ever after."""

from typing import Any, Final

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql import ClauseElement

_DIALECT: Final = dialect()  # type: ignore[no-untyped-call]  # the package has no types for it


class AttributeRow(asyncpg.Record):
    """A row whose columns are attributes as of the mapper's rows, for what takes those."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the column holds
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def sql_of(query: ClauseElement) -> str:
    """Return the query as the driver takes it, its parameters numbered in order of appearance."""
    return str(query.compile(dialect=_DIALECT))
