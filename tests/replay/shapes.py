"""The shapes that a workflow's history can take, each produced by the real system."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from tests.replay import (
    after_turn_shapes,
    ingestion_shapes,
    tool_shapes,
    turn_shapes,
    upkeep_shapes,
)
from tests.replay.scene import Scene

Shape: TypeAlias = Callable[[Scene], Awaitable[str]]
"""Returns the id of the workflow whose history it is."""

SHAPES: Final[Mapping[str, Shape]] = {
    shape.__name__: shape
    for shape in (
        *turn_shapes.SHAPES,
        *tool_shapes.SHAPES,
        *ingestion_shapes.SHAPES,
        *after_turn_shapes.SHAPES,
        *upkeep_shapes.SHAPES,
    )
}

RETIRED: Final = frozenset(
    {
        "delivery_that_finds_nothing",
        "erasure_sweep_that_finds_nothing",
        "extraction_of_a_failing_provider",
        "extraction_of_nothing",
        "extraction_that_is_retried",
        "extraction_that_suggests",
        "ingestion_sweep_that_finds_nothing",
        "ingestion_sweep_that_starts",
        "pause_that_was_not_continued",
        "sweep_that_finds_nothing",
        "sweep_that_starts_and_closes",
        "work_of_a_failing_provider",
        "work_that_is_retried",
        "works_after_a_turn",
    }
)
"""Recorded by earlier versions, whose types of workflow are registered for one more release."""
