"""Owns the tools that ship with the worker and need nothing, and those described for others."""

from collections.abc import Mapping

from pydantic import JsonValue

from services.tools.calculator import Calculator
from services.tools.date_time import DateTime
from services.tools.definition import (
    ToolDefinition,
    ToolExecution,
    ToolOutcome,
    ToolUnavailableError,
)
from services.tools.registry import ToolRegistry


def default_tools() -> ToolRegistry:
    """Return a registry of the tools that need nothing but this process."""
    return ToolRegistry([Calculator(), DateTime()])


class DescribedTool:
    """A tool that other processes run: this one only tells of it."""

    def __init__(self, definition: ToolDefinition) -> None:
        self.definition = definition

    async def run(
        self, _tool_input: Mapping[str, JsonValue], _execution: ToolExecution, /
    ) -> ToolOutcome:
        """Run nothing. Errors: ToolUnavailableError, always."""
        raise ToolUnavailableError(f"{self.definition.name} runs on the workers.", reached=False)
