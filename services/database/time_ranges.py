"""Owns narrowing a query to a range of time, by the index that ids are."""

from datetime import timedelta
from typing import Any, Final, TypeVar

from sqlmodel import SQLModel, col
from sqlmodel.sql.expression import SelectOfScalar

from schema.ids import first_id_at
from schema.time_ranges import TimeRange

Row = TypeVar("Row", bound=SQLModel)

# An id and the moment beside it may be made by two clocks, so ids only narrow: moments decide.
CLOCK_SLACK: Final = timedelta(days=1)


def within(query: SelectOfScalar[Row], table: type[Row], chosen: TimeRange) -> SelectOfScalar[Row]:
    """Return the query for what was made in the range; ids of the table are UUIDv7."""
    columns: Any = table
    if chosen.since is not None:
        query = query.where(
            col(columns.created_at) >= chosen.since,
            col(columns.id) >= first_id_at(chosen.since - CLOCK_SLACK),
        )
    if chosen.until is not None:
        query = query.where(
            col(columns.created_at) < chosen.until,
            col(columns.id) < first_id_at(chosen.until + CLOCK_SLACK),
        )
    return query
