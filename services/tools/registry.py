"""Owns the way from a tool's name and a raw input to a bounded outcome.

Does not time out, retry or store: the workflow and its activities do.
"""

import json
from collections.abc import Iterable, Mapping

from jsonschema import Draft202012Validator
from pydantic import JsonValue

from services.tools.definition import LocalTool, ToolDefinition, ToolExecution, ToolOutcome
from services.tools.schema_errors import explain, shortened

DEFAULT_MAX_OUTPUT_CHARS = 20_000


class ToolRegistry:
    """The local tools of a worker, by name.

    Errors: ValueError for two tools of one name; jsonschema.SchemaError for a tool whose input
    schema is no JSON schema.
    """

    def __init__(
        self, tools: Iterable[LocalTool], *, max_output_chars: int = DEFAULT_MAX_OUTPUT_CHARS
    ) -> None:
        self._tools: dict[str, LocalTool] = {}
        self._validators: dict[str, Draft202012Validator] = {}
        self._max_output_chars = max_output_chars
        for tool in tools:
            self._add(tool)

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """Return what each tool is, in the order in which they were given."""
        return tuple(tool.definition for tool in self._tools.values())

    def get(self, name: str) -> LocalTool | None:
        """Return the tool of this name, or None."""
        return self._tools.get(name)

    async def run(
        self, name: str, tool_input: Mapping[str, JsonValue], execution: ToolExecution
    ) -> ToolOutcome:
        """Run a tool on an input that is checked first, and bound what it answers.

        Errors: an unknown tool and an invalid input are outcomes with `is_error`, worded for the
        model; what the tool raises propagates.
        """
        tool = self._tools.get(name)
        if tool is None:
            return ToolOutcome(output=self._unknown(name), is_error=True)
        problem = self._problem(name, tool_input)
        if problem is not None:
            return ToolOutcome(output=f"Invalid input to {name}: {problem}.", is_error=True)
        return self._bounded(await tool.run(tool_input, execution))

    def _add(self, tool: LocalTool) -> None:
        definition = tool.definition
        if definition.name in self._tools:
            raise ValueError(f"two tools are called {definition.name!r}")
        Draft202012Validator.check_schema(definition.input_schema)
        self._tools[definition.name] = tool
        self._validators[definition.name] = Draft202012Validator(definition.input_schema)

    def _problem(self, name: str, tool_input: Mapping[str, JsonValue]) -> str | None:
        try:
            # A model can escape half a surrogate pair: valid JSON, but text that nothing stores.
            json.dumps(dict(tool_input), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return "it holds text that is not valid Unicode"
        return explain(self._validators[name].iter_errors(dict(tool_input)))

    def _unknown(self, name: str) -> str:
        known = ", ".join(self._tools) or "none"
        return f"There is no tool called `{shortened(name)}`. The tools are: {known}."

    def _bounded(self, outcome: ToolOutcome) -> ToolOutcome:
        bounded = _cut(outcome.output, limit=self._max_output_chars)
        return outcome.model_copy(update={"output": bounded})


def _cut(text: str, *, limit: int) -> str:
    if len(text) <= limit:
        return text
    # The marker counts towards the limit, at the length that it has with the larger number.
    kept = max(0, limit - len(_cut_marker(len(text), len(text))))
    return text[:kept] + _cut_marker(kept, len(text))


def _cut_marker(kept: int, total: int) -> str:
    return f"\n[Cut here: the first {kept:,} of {total:,} characters are shown.]"
