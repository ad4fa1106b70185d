"""Owns which tools a turn's model is told of: those that the turn's user may use now.

The same decision as `ToolService.offered` makes, without looking the user up again: who they are
and what they switched off is among the turn's facts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.tools.definition import ToolDefinition
from services.tools.permission import Audience, ToolSetting, offerable, permitted


class ToolList(Protocol):
    """Knows all tools."""

    async def definitions(self) -> Sequence[ToolDefinition]:
        """Return what each tool is, in an order that stays the same: prompts are cached by it."""
        ...


class ToolDecisions(Protocol):
    """Knows what administrators decided about tools."""

    async def all(self) -> Mapping[str, ToolSetting]:
        """Return the decisions by the names of their tools."""
        ...


@dataclass(frozen=True, slots=True)
class DecidedTools:
    """All tools, and what was decided about them."""

    definitions: Sequence[ToolDefinition]
    decisions: Mapping[str, ToolSetting]

    def offered_to(
        self, audience: Audience | None, *, disabled: Collection[str]
    ) -> tuple[ToolDefinition, ...]:
        """Return the tools that somebody has; who is no audience has none."""
        if audience is None:
            return ()
        usable = offerable(permitted(self.definitions, self.decisions, audience))
        return tuple(tool for tool in usable if tool.name not in disabled)


class ToolOffer:
    """Knows the tools as they are now. Errors: DatabaseUnavailableError."""

    def __init__(self, tools: ToolList, decisions: ToolDecisions) -> None:
        self._tools = tools
        self._decisions = decisions

    async def decided(self) -> DecidedTools:
        """Return all tools with what was decided about them."""
        return DecidedTools(await self._tools.definitions(), await self._decisions.all())
