"""Owns the refusals that several services share; each has its own beside its service."""

from dataclasses import dataclass
from enum import StrEnum


class Unreachable(StrEnum):
    """Why an actor sees no such row."""

    MISSING = "missing"
    FORBIDDEN = "forbidden"


class Conflict(StrEnum):
    """Why a request that is right by itself comes at the wrong time."""

    VERSION_CHANGED = "version_changed"
    KEY_REUSED = "key_reused"
    MADE_AND_DELETED = "made_and_deleted"


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The refusal of one more thing than a plan allows; `limit` is how many it does."""

    limit: int


@dataclass(frozen=True, slots=True)
class InvalidField:
    """A field of a request whose type is right, but not what it says."""

    path: str
    message: str
