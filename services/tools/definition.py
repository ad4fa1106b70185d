"""Owns what a tool is: its description, its outcome and the shape of one that runs in-process.

Does not run anything: `registry.py` does.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schema.tools import ApprovalPolicy, RetryClass, ToolKind

__all__ = [
    "ApprovalPolicy",
    "LocalTool",
    "RetryClass",
    "ToolDefinition",
    "ToolKind",
    "ToolOutcome",
    "input_schema",
]


class ToolDefinition(BaseModel):
    """What the model, the prompt and the workflow need to know about a tool.

    `instant` tools are pure and take microseconds, so they run as local activities;
    `instructions` are the tool's sentences in the prompt.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str
    input_schema: dict[str, JsonValue]
    kind: ToolKind = ToolKind.LOCAL
    timeout: timedelta
    retry_class: RetryClass
    approval: ApprovalPolicy = ApprovalPolicy.AUTO
    instant: bool = False
    instructions: str = ""


class ToolOutcome(BaseModel):
    """What goes back to the model; an error says how the call can be corrected."""

    model_config = ConfigDict(frozen=True)

    output: str
    is_error: bool = False


class LocalTool(Protocol):
    """A tool that runs in the worker's own process."""

    @property
    def definition(self) -> ToolDefinition:
        """Describe the tool."""
        ...

    async def run(self, tool_input: Mapping[str, JsonValue]) -> ToolOutcome:
        """Return the outcome for an input that satisfies the definition's schema.

        Errors: what the model can correct is an outcome with `is_error`; what raises is a bug
        or an outage, for the caller to retry or report.
        """
        ...


def input_schema(model: type[BaseModel]) -> dict[str, JsonValue]:
    """Return the JSON schema of a flat input model without pydantic's generated titles.

    The schema travels in every prompt, where a title that repeats the name only costs tokens.
    """
    schema: dict[str, Any] = model.model_json_schema()
    schema.pop("title", None)
    # The docstring speaks to developers; the definition's description speaks to the model.
    schema.pop("description", None)
    for described in schema["properties"].values():
        described.pop("title", None)
    return schema
