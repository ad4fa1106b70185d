"""Owns the tools that are known here and run elsewhere."""

from collections.abc import Mapping

from pydantic import JsonValue

from schema.tools import ToolDefinition
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError


class DescribedTool:
    """A tool that other processes run: this one only tells of it."""

    def __init__(self, definition: ToolDefinition) -> None:
        self.definition = definition

    async def run(
        self, _tool_input: Mapping[str, JsonValue], _execution: ToolExecution, /
    ) -> ToolOutcome:
        """Run nothing. Errors: ToolUnavailableError, always."""
        raise ToolUnavailableError(f"{self.definition.name} runs on the workers.", reached=False)
