"""The tools that run in this process, by name.

Does not check their input or bound their output: `executor.py` does.
"""

from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from schema.tools import ToolDefinition
from services.tools.definition import (
    LocalTool,
    ToolExecution,
    ToolOutcome,
    ToolUnavailableError,
)
from services.tools.validation import validator_of


class LocalTools:
    """The local tools of a process, and their runner.

    Errors: ValueError for two tools with the same name; jsonschema_rs.ValidationError for a tool
    whose input schema is not a JSON schema.
    """

    def __init__(self, tools: Iterable[LocalTool]) -> None:
        self._tools: dict[str, LocalTool] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: LocalTool) -> None:
        """Add a tool after the others."""
        definition = tool.definition
        if definition.name in self._tools:
            raise ValueError(f"duplicate tool name {definition.name!r}")
        validator_of(definition.input_schema)
        self._tools[definition.name] = tool

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """Return the tools' definitions, in the order in which they were added."""
        return tuple(tool.definition for tool in self._tools.values())

    def get(self, name: str) -> LocalTool | None:
        """Return the tool of this name, or None."""
        return self._tools.get(name)

    async def run(
        self,
        definition: ToolDefinition,
        tool_input: Mapping[str, JsonValue],
        execution: ToolExecution,
        /,
    ) -> ToolOutcome:
        """Run a tool of this process on a validated input; exceptions propagate."""
        return await self._tools[definition.name].run(tool_input, execution)


class WorkerOnlyTool:
    """A tool that runs only on workers; other processes know its definition."""

    def __init__(self, definition: ToolDefinition) -> None:
        self.definition = definition

    async def run(
        self, _tool_input: Mapping[str, JsonValue], _execution: ToolExecution, /
    ) -> ToolOutcome:
        """Run nothing. Errors: ToolUnavailableError, always."""
        raise ToolUnavailableError(f"{self.definition.name} runs on the workers.", reached=False)
