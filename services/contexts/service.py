"""Owns gathering the layers of a turn's prompt, each within its budget.

What of the conversation fits behind them is `services/prompts/window.py`'s, keeping them with the
turn `services/turns/preparation.py`'s.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from schema.actors import acting_user
from schema.contexts import ContextSource, PromptLayers
from schema.events import NoticeEvent
from schema.ids import UserId
from schema.tools import ToolDefinition
from services.contexts.facts import TurnFacts
from services.contexts.rendering import user_layer
from services.contexts.search import ContextSearch, Findings
from services.contexts.selection import quoted
from services.prompts.base_prompts import BasePrompt, BasePrompts
from services.prompts.layers import offered_tools, system_layer, tools_layer
from services.prompts.placeholders import filled
from services.prompts.tokens import estimated_tokens, tokens_of
from services.prompts.window import Window, fit
from services.tools.catalogue import ToolSnapshot

_NOTHING_FOUND: Final = Findings()


@dataclass(frozen=True, slots=True)
class PromptBudgets:
    """How many tokens a prompt may have, and two of its layers at most."""

    prompt: int
    user: int
    context: int


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What a turn is to be sent; `window` is None where its message does not fit.

    Units: `tokens` of each layer are estimates.
    """

    layers: PromptLayers
    sources: tuple[ContextSource, ...]
    tokens: dict[str, int]
    window: Window | None
    missing: tuple[str, ...] = ()

    @property
    def notices(self) -> list[NoticeEvent]:
        """What the person who waits should know."""
        if not self.missing:
            return []
        what = " and ".join(self.missing)
        return [
            NoticeEvent(
                code="context_degraded",
                message=f"Your {what} could not be searched; the answer goes without.",
            )
        ]


class ToolSource(Protocol):
    """Knows all tools."""

    async def snapshot(self, *, version: int | None = None) -> ToolSnapshot:
        """Return the tools as they were some moments ago, or at `version` at least."""
        ...


class ContextService:
    """Gathers what turns are sent besides the conversation."""

    def __init__(
        self,
        prompts: BasePrompts,
        tools: ToolSource,
        search: ContextSearch,
        budgets: PromptBudgets,
    ) -> None:
        self._prompts = prompts
        self._tools = tools
        self._search = search
        self._budgets = budgets

    async def known_tools(self) -> ToolSnapshot:
        """Return what a turn is offered some of; asked for before a transaction begins.

        Errors: DatabaseUnavailableError.
        """
        return await self._tools.snapshot()

    def gather_known(self, facts: TurnFacts, tools: ToolSnapshot) -> TurnContext | None:
        """Return the turn's context, or None where something has to be waited for.

        Idempotency: what was gathered before comes out again.
        """
        if facts.stored is not None:
            layers, sources = facts.stored
            return self._with_window(facts, layers, sources)
        if tools.version < facts.tools_version:
            return None
        base = self._prompts.known(facts.active_prompt)
        if base is None:
            return None
        without = self._context(facts, tools, base, _NOTHING_FOUND)
        # Where the message does not fit, nothing is searched for it.
        return without if without.window is None or not self._is_to_search(facts) else None

    async def gather(self, user_id: UserId, facts: TurnFacts, tools: ToolSnapshot) -> TurnContext:
        """Return the turn's context, with what is found for its message.

        Errors: DatabaseUnavailableError for the base prompt; a search that fails leaves its layer
        out.
        """
        if tools.version < facts.tools_version:
            tools = await self._tools.snapshot(version=facts.tools_version)
        base = await self._prompts.read(facts.active_prompt)
        findings = _NOTHING_FOUND
        if facts.question is not None and self._is_to_search(facts):
            findings = await self._search.find(
                acting_user(user_id),
                facts.question,
                memories=facts.has_memories,
                knowledge=facts.has_knowledge,
            )
        return self._context(facts, tools, base, findings)

    def _is_to_search(self, facts: TurnFacts) -> bool:
        return bool(facts.question and facts.question.strip()) and self._search.can_find(
            memories=facts.has_memories, knowledge=facts.has_knowledge
        )

    def _context(
        self,
        facts: TurnFacts,
        tools: ToolSnapshot,
        base: BasePrompt,
        findings: Findings,
    ) -> TurnContext:
        """Give each layer its room: half of what is left at most, so that the rest has some."""
        content = filled(base.content, now=datetime.now(UTC), time_zone=facts.time_zone)
        system = system_layer(content)
        # What is never cut comes first.
        left = self._budgets.prompt - tokens_of(system) - _newest(facts)
        offered = tools.offered_to(facts.audience, disabled=facts.disabled_tools)
        told = _fitting(offered, budget_tokens=left // 2)
        layers = PromptLayers(
            version=base.version,
            system=system,
            tools=tools_layer(told),
            offered=offered_tools(told),
        )
        left -= _tools_tokens(layers)
        user = user_layer(
            name=facts.display_name,
            language=facts.language,
            time_zone=facts.time_zone,
            instructions=facts.instructions,
            budget_tokens=min(self._budgets.user, left // 2),
        )
        left -= tokens_of(user)
        context, sources = quoted(
            findings.memories,
            findings.passages,
            budget_tokens=min(self._budgets.context, left // 2),
        )
        layers = layers.model_copy(update={"user": user, "context": context})
        return self._with_window(facts, layers, sources, missing=findings.missing)

    def _with_window(
        self,
        facts: TurnFacts,
        layers: PromptLayers,
        sources: tuple[ContextSource, ...],
        *,
        missing: tuple[str, ...] = (),
    ) -> TurnContext:
        tokens = {
            "system": tokens_of(layers.system),
            "tools": _tools_tokens(layers),
            "user": tokens_of(layers.user),
            "context": tokens_of(layers.context),
        }
        budget = self._budgets.prompt - sum(tokens.values())
        window = fit(facts.sizes, budget_tokens=budget) if facts.sizes else None
        if window is not None:
            tokens["conversation"] = window.tokens
        return TurnContext(layers, sources, tokens, window, missing)


def _newest(facts: TurnFacts) -> int:
    return estimated_tokens(facts.sizes[-1].chars) if facts.sizes else 0


def _fitting(tools: Sequence[ToolDefinition], *, budget_tokens: int) -> list[ToolDefinition]:
    """Return the tools; where these are a great many, the first that fit."""
    kept: list[ToolDefinition] = []
    for tool in tools:
        schema = json.dumps(tool.input_schema)
        words = (tool.name, tool.instructions, tool.description, schema)
        budget_tokens -= estimated_tokens(sum(map(len, words)))
        if budget_tokens < 0:
            break
        kept.append(tool)
    return kept


def _tools_tokens(layers: PromptLayers) -> int:
    """Return the tokens of the tools: their instructions, and how the model is told of them."""
    told = sum(
        len(tool.description) + len(json.dumps(tool.input_schema)) for tool in layers.offered
    )
    chars = len(layers.tools) + told
    return estimated_tokens(chars) if chars else 0
