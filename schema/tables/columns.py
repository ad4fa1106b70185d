"""Column types that several tables share.

A column object belongs to one table, so each use makes its own: these are functions.
"""

from datetime import UTC, datetime
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import DateTime
from sqlmodel import Field


def utc_now() -> datetime:
    """Return the present moment, with its zone."""
    return datetime.now(UTC)


def creation_moment() -> Any:  # noqa: ANN401 -- as SQLModel's own Field, assignable to any column
    """Return a field that holds the moment at which the row was made."""
    return Field(default_factory=utc_now, sa_type=DateTime(timezone=True), nullable=False)


def moment(*, nullable: bool = True) -> Any:  # noqa: ANN401 -- as SQLModel's own Field
    """Return a field that holds a moment with its zone."""
    default: dict[str, Any] = {"default": None} if nullable else {}
    return Field(sa_type=DateTime(timezone=True), nullable=nullable, **default)


def embedding() -> Any:  # noqa: ANN401 -- as SQLModel's own Field
    """Return a field that holds a vector of whatever length its embedder makes."""
    return Field(default=None, sa_type=VECTOR, nullable=True)
