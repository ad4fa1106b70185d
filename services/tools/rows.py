"""Owns turning rows of trials into what administrators see."""

from schema.tables import ToolTestRow
from schema.tools import ToolTest


def tool_test_from_row(row: ToolTestRow) -> ToolTest | None:
    """Return what came of the trial that the row holds, or None while nothing has."""
    if row.output is None:
        return None
    return ToolTest(
        output=row.output, is_error=bool(row.is_error), duration_ms=row.duration_ms or 0
    )
