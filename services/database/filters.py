"""Owns narrowing a query by what a client chose of several things."""

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlmodel import SQLModel
from sqlmodel.sql.expression import SelectOfScalar

R = TypeVar("R", bound=SQLModel)


def equal_to(query: SelectOfScalar[R], chosen: Mapping[Any, object]) -> SelectOfScalar[R]:
    """Keep the rows whose columns are as chosen; None stands for no choice."""
    for column, value in chosen.items():
        if value is not None:
            query = query.where(column == value)
    return query
