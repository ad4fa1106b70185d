"""Column types that several tables share.

A column object belongs to one table, so each use creates its own: these are functions.
"""

from datetime import UTC, datetime
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import DateTime
from sqlmodel import Field


def utc_now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)


def creation_moment() -> Any:  # noqa: ANN401 -- as SQLModel's own Field, assignable to any column
    """Return a field for the time at which the row was created."""
    return Field(default_factory=utc_now, sa_type=DateTime(timezone=True), nullable=False)


def moment(*, nullable: bool = True) -> Any:  # noqa: ANN401 -- as SQLModel's own Field
    """Return a field for a time with its zone."""
    default: dict[str, Any] = {"default": None} if nullable else {}
    return Field(sa_type=DateTime(timezone=True), nullable=nullable, **default)


def embedding() -> Any:  # noqa: ANN401 -- as SQLModel's own Field
    """Return a field for a vector of any length; embedders differ."""
    return Field(default=None, sa_type=VECTOR, nullable=True)
