"""Owns the condition of a change: the versions of a thing that it is meant for."""

from collections.abc import Set as AbstractSet
from typing import TypeAlias

Versions: TypeAlias = AbstractSet[int] | None
"""The versions that a change is meant for; None for whichever is there."""


def is_meant(version: int | None, versions: Versions) -> bool:
    """Say whether a change for `versions` is meant for a thing of this version."""
    return versions is None or version in versions
