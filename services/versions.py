"""Owns the versions of a thing: which ones a change is meant for, and counting the change."""

from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Protocol, TypeAlias

from schema.tables.columns import utc_now

Versions: TypeAlias = AbstractSet[int] | None
"""The versions that a change is meant for; None for whichever is there."""


class Versioned(Protocol):
    """A row whose changes are counted."""

    version: int
    updated_at: datetime


def is_meant(version: int | None, versions: Versions) -> bool:
    """Say whether a change for `versions` is meant for a thing of this version."""
    return versions is None or version in versions


def touch(row: Versioned) -> None:
    """Count a change of the row, made now."""
    row.version += 1
    row.updated_at = utc_now()
