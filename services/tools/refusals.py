"""Tools that a model's provider refuses all the same: found, left out, remembered, and told.

A provider that refuses a request for its tools has been paid nothing for it, so the request is
sent again without the tool that it names. Where it names none, one tool after the other is left
out, those of others first; then all of others; then all.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog
from cachetools import TLRUCache
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.alerts import AlertKind, AlertSeverity
from schema.audit import ResourceType
from schema.contexts import OfferedTool
from schema.tables import McpServerRow, McpToolRow, WorkflowToolRow
from schema.tools import SERVER_SEPARATOR
from services.alerts import OnAlert, raise_alert
from services.database import Database

if TYPE_CHECKING:
    # At run time it would import the whole SDK.
    from anthropic.types import ToolParam

    from services.prompts.conversation import EarlierStep

REFUSED_BY_PROVIDER: Final = "Refused by the model's provider"
REFUSED: Final = f"{REFUSED_BY_PROVIDER}. Enable the tool to offer it again."

_log = structlog.get_logger(__name__)

_MOST_REFUSALS: Final = 24
"""Refused requests before all tools of others are left out, and then all tools."""
_MAX_PROBLEM: Final = 2_000
_MOST_NAMED: Final = 5
_REMEMBERED: Final = 10_000
_LIFETIME_S: Final = 300.0
_LIFETIME_OF_STORED_S: Final = 30.0
"""For later steps of running turns: others aren't offered the tool until it is enabled again."""
_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(slots=True)
class ToolTrials:
    """Which tools the next request of a model call goes without.

    `left_out` are all of them, `known` those of earlier calls, `refused` those that this call was
    found to be refused for.
    """

    offered: Sequence[OfferedTool]
    refused: list[str] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    left_out: frozenset[str] = field(init=False)
    _on_trial: str | None = None
    _tried: set[str] = field(default_factory=set)
    _refusals: int = 0

    def __post_init__(self) -> None:
        self.left_out = self.known

    def take_refusal(self, index: int | None) -> bool:
        """Note that the request was refused for its tools; False if there is nothing to try.

        `index` is the position of the tool that the provider names, if it names one.
        """
        sent = [tool.name for tool in self.offered if tool.name not in self.left_out]
        if not sent:
            return False
        self._refusals += 1
        # The one on trial was not it, or not the only one.
        named = sent[index] if index is not None and index < len(sent) else None
        self._on_trial = None
        if self._refusals > _MOST_REFUSALS:
            named = None
        if named is not None:
            self.refused.append(named)
        else:
            self._on_trial = self._next_on_trial()
        if named is None and self._on_trial is None:
            self.left_out = self._last_resort()
        else:
            self.left_out = self.known.union(filter(None, [*self.refused, self._on_trial]))
        return True

    def take_answer(self) -> None:
        """Note that the provider took the request."""
        if self._on_trial is not None:
            self.refused.append(self._on_trial)
            self._on_trial = None

    @property
    def has_new(self) -> bool:
        """Whether a request was refused, beyond what was known."""
        return self._refusals > 0

    @property
    def convicted(self) -> list[OfferedTool]:
        """The tools that were refused by themselves: a provider may take none at all."""
        takes_others = len(self.offered) == 1 or len(self.left_out) < len(self.offered)
        return [tool for tool in self.offered if takes_others and tool.name in self.refused]

    def _next_on_trial(self) -> str | None:
        if self._refusals > _MOST_REFUSALS:
            return None
        # Ours come first in a prompt.
        for tool in reversed(self.offered):
            if tool.name not in {*self._tried, *self.refused, *self.known}:
                self._tried.add(tool.name)
                return tool.name
        return None

    def _last_resort(self) -> frozenset[str]:
        of_servers = {tool.name for tool in self.offered if SERVER_SEPARATOR in tool.name}
        if not of_servers <= self.left_out:
            return self.known.union(of_servers, self.refused)
        return frozenset(tool.name for tool in self.offered)


class RefusedTools:
    """Remembers for minutes what a model's provider refuses, and stores what it is certain of."""

    def __init__(self, database: Database, on_alert: OnAlert) -> None:
        self._database = database
        self._on_alert = on_alert
        # Each with its lifetime in seconds.
        self._known: TLRUCache[tuple[str, str], float] = TLRUCache(
            _REMEMBERED, ttu=lambda _, lifetime_s, now: now + lifetime_s
        )

    def trials(self, model: str, offered: Sequence[OfferedTool]) -> ToolTrials:
        """Return the trials for a call; they begin without what is known to be refused."""
        known = (tool.name for tool in offered if (model, _key(tool)) in self._known)
        return ToolTrials(offered, known=frozenset(known))

    async def remember(self, model: str, trials: ToolTrials) -> None:
        """Remember which tools a request went without; store why, for others and administrators.

        What can't be stored is logged: the answer is under way, and paid for.
        """
        for tool in trials.offered:
            if tool.name in trials.left_out:
                self._known[model, _key(tool)] = _LIFETIME_S
        try:
            async with self._database.transaction(SERVICE) as session:
                for tool in trials.convicted:
                    if await _store(session, tool):
                        self._known[model, _key(tool)] = _LIFETIME_OF_STORED_S
            if trials.convicted:
                self._on_alert()
        except Exception:  # noqa: BLE001 -- whatever it is, the answer goes on
            _log.exception("refused_tools_not_stored", model=model)


async def _store(session: AsyncSession, tool: OfferedTool) -> bool:
    """Store that a tool of others is refused, with an alert, unless it is known or has changed.

    Return whether it is one of others, as it was refused.
    """
    server, separator, name = tool.name.partition(SERVER_SEPARATOR)
    row: McpToolRow | WorkflowToolRow | None
    if separator:
        row = await session.get(McpToolRow, (server, name), with_for_update=True)
    else:
        row = await session.get(WorkflowToolRow, tool.name, with_for_update=True)
    if row is None or _schema(row) != _schema(tool):
        return False
    if row.problem is not None:
        return True
    row.problem = REFUSED
    of_server = await session.get(McpServerRow, server, with_for_update=True) if separator else None
    if of_server is not None:
        words = f"{REFUSED_BY_PROVIDER}: `{name}`."
        of_server.problem = " ".join(filter(None, [of_server.problem, words]))[:_MAX_PROBLEM]
    await raise_alert(
        session,
        AlertKind.TOOL_REFUSED,
        AlertSeverity.WARNING,
        resource=(ResourceType.TOOL, tool.name),
    )
    return True


def called_tools(steps: "Iterable[EarlierStep]") -> "list[ToolParam]":
    """Return what stands for the tools called before, where none are offered any more.

    The Messages API refuses calls and results of tools in a request that defines no tools.
    """
    blocks = (block for step in steps for block in step.blocks)
    names = {block["name"] for block in blocks if block["type"] == "tool_use"}
    return [
        {"name": name, "input_schema": {"type": "object", "properties": {}}}
        for name in sorted(filter(_TOOL_NAME.fullmatch, names))
    ]


def left_out_words(names: Iterable[str]) -> str:
    """Return the sentence for the user about tools that an answer went without."""
    listed = sorted(names)
    shown = ", ".join(f"`{name}`" for name in listed[:_MOST_NAMED])
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return f"The model's provider refused some tools; the answer goes without: {shown}{more}."


def _schema(tool: OfferedTool | McpToolRow | WorkflowToolRow) -> dict[str, Any]:
    return {"type": "object", **tool.input_schema}


def _key(tool: OfferedTool) -> str:
    return json.dumps([tool.name, tool.description, tool.input_schema], sort_keys=True)
