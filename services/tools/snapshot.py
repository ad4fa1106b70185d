"""Owns all tools as they were at one moment, with what administrators had decided about them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from schema.tools import ToolDefinition
from services.tools.permission import (
    UNDECIDED,
    Audience,
    ToolSetting,
    as_decided,
    offerable,
    permitted,
)


@dataclass(frozen=True, slots=True)
class KnownTools:
    """Tools and decisions by their names; whatever changes either makes the `version` higher."""

    definitions: Mapping[str, ToolDefinition]
    decisions: Mapping[str, ToolSetting]
    version: int = 0

    def find(self, name: str) -> ToolDefinition | None:
        """Return the tool of this name as the administrators decided that it be run."""
        tool = self.definitions.get(name)
        return None if tool is None else as_decided(tool, self.decision(name))

    def decision(self, name: str) -> ToolSetting:
        """Return what was decided about a tool."""
        return self.decisions.get(name, UNDECIDED)

    def permitted_to(self, audience: Audience) -> tuple[ToolDefinition, ...]:
        """Return the tools that somebody may use, in an order that stays the same."""
        return permitted(tuple(self.definitions.values()), self.decisions, audience)

    def offered_to(
        self, audience: Audience | None, *, disabled: Collection[str]
    ) -> tuple[ToolDefinition, ...]:
        """Return the tools that somebody's model is told of; who is no audience has none."""
        if audience is None:
            return ()
        usable = offerable(self.permitted_to(audience))
        return tuple(tool for tool in usable if tool.name not in disabled)
