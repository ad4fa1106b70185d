"""Owns the tools that run in this process, by name.

Does not check their input or bound their output: `executor.py` does.
"""

from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from schema.tools import ToolDefinition
from services.tools.definition import LocalTool, ToolExecution, ToolOutcome
from services.tools.validation import validator_of


class ToolRegistry:
    """The local tools of a process; the runner of tools that are local.

    Errors: ValueError for two tools of one name; jsonschema_rs.ValidationError for a tool whose
    input schema is no JSON schema.
    """

    def __init__(self, tools: Iterable[LocalTool]) -> None:
        self._tools: dict[str, LocalTool] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: LocalTool) -> None:
        """Take a tool in behind the others."""
        definition = tool.definition
        if definition.name in self._tools:
            raise ValueError(f"two tools are called {definition.name!r}")
        validator_of(definition.input_schema)
        self._tools[definition.name] = tool

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """Return what each tool is, in the order in which they were given."""
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
        """Run a tool of this process on an input that was checked; what it raises propagates."""
        return await self._tools[definition.name].run(tool_input, execution)
