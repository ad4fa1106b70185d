"""Payloads of the workflow `Sweep`: counts of what it handled, no content."""

from collections.abc import Mapping
from enum import StrEnum

from schema.wire import Payload


class SweepPart(StrEnum):
    """The kinds of pending work that a sweep handles."""

    TURNS = "turns"
    INGESTIONS = "ingestions"
    ERASURES = "erasures"
    ANSWERS = "answers"
    DECISIONS = "decisions"
    FILES = "files"


class SweepInput(Payload):
    """The parts with pending work."""

    parts: tuple[SweepPart, ...]


class SweepOutput(Payload):
    """How many items of each part were handled."""

    handled: Mapping[SweepPart, int]


class FileSweepOutcome(Payload):
    """Files and objects that were deleted."""

    deleted: int


class ErasureOutcome(Payload):
    """Streams that were erased; `is_done` is false where some are left for the next sweep."""

    erased: int
    is_done: bool
