"""Owns narrowing a list to a range of time, by the index that ids are."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, Uuid, and_, bindparam
from sqlmodel import SQLModel, col

from schema.ids import first_id_at
from schema.time_ranges import TimeRange

# An id and the moment beside it may be made by two clocks, so ids only narrow: moments decide.
CLOCK_SLACK: Final = timedelta(days=1)


def made_within(table: type[SQLModel]) -> dict[str, ColumnElement[bool]]:
    """Return the narrowings to what was made in a TimeRange; ids of the table are UUIDv7."""
    columns: Any = table
    made, row_id = col(columns.created_at), col(columns.id)
    return {
        "since": and_(made >= _moment("since"), row_id >= _id("first_id")),
        "until": and_(made < _moment("until"), row_id < _id("end_id")),
    }


def ids_within(chosen: TimeRange) -> dict[str, UUID]:
    """Return the parameters that these narrowings take beside the range itself."""
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
