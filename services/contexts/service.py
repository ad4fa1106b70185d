"""Gathers the layers of a turn's prompt, each within its budget.

`services/prompts/window.py` picks what of the conversation fits behind them, and
`services/turns/preparation.py` stores them with the turn.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import structlog

from schema.actors import acting_user
from schema.contexts import ContextSource, OfferedTool, PromptLayers
from schema.events import NoticeEvent
from schema.ids import UserId
from schema.tools import ToolDefinition
from services.contexts.branches import FollowedBranch
from services.contexts.facts import TurnFacts
from services.contexts.rendering import quoted, user_layer
from services.contexts.search import ContextSearch, Findings
from services.models.context_windows import ContextWindows
from services.prompts.base_prompts import BasePrompt, BasePrompts, filled
from services.prompts.correction import LEAST_CORRECTION
from services.prompts.layers import offered_tools, summary_layer, system_layer, tools_layer
from services.prompts.tokens import tokens_of
from services.prompts.window import Window, fit
from services.tools.catalogue import ToolSnapshot

_log = structlog.get_logger(__name__)

MAX_TOOLS: Final = 250
"""How many tools a turn can have; models choose badly among more, and gateways refuse them."""

_NOTHING_FOUND: Final = Findings()

_LONG: Final = 0.6
"""How much of its room a conversation fills when it is to be summarised."""

_MOST_RESULTS: Final = 4
"""Results of earlier turns' tools have at most a quarter of a prompt, however small that is."""

_MOST_SKIPPED: Final = 200
"""Messages of other branches that are listed with a turn; if there are more, its branch is followed
again for each call."""

_MOST_TOOLS: Final = 3
"""Tools have at most a third of a prompt."""

_CUT: Final = NoticeEvent(
    code="conversation_cut",
    message="The conversation is long: its oldest part was left out, and is not summarised yet.",
)


@dataclass(frozen=True, slots=True)
class PromptBudgets:
    """The most tokens of a prompt, of two of its layers, and of results of earlier turns' tools."""

    prompt: int
    user: int
    context: int
    results: int = 20_000


@dataclass(frozen=True, slots=True)
class TurnContext:
    """The prompt of a turn; `window` is None if its message does not fit.

    `skipped` are messages in the window's time that are not in it, None if there are too many to
    list; `summary_id` is the summary that it has, `is_cut` says that some of the conversation is in
    neither, and `is_long` that the conversation should be summarised. Units: `tokens` of each layer
    are estimates; `correction` is the factor that what the provider counted last adds to them;
    `history_tokens` is the room for the conversation, `result_tokens` the most of the results of
    one turn's tools.
    """

    layers: PromptLayers
    sources: tuple[ContextSource, ...]
    tokens: dict[str, int]
    window: Window | None
    missing: tuple[str, ...] = ()
    correction: float = 1.0
    history_tokens: int = 0
    result_tokens: int = 0
    skipped: tuple[UUID, ...] | None = None
    summary_id: UUID | None = None
    is_cut: bool = False
    is_long: bool = False

    @property
    def corrected_tokens(self) -> int:
        """The estimate of the whole prompt."""
        return ceil(sum(self.tokens.values()) * self.correction)

    @property
    def notices(self) -> list[NoticeEvent]:
        """The notices for the user."""
        notices: list[NoticeEvent] = []
        if self.missing:
            what = " and ".join(self.missing)
            message = f"Unavailable for this answer: your {what}."
            notices.append(NoticeEvent(code="context_degraded", message=message))
        if self.is_cut and self.window is not None:
            notices.append(_CUT)
        return notices


class ToolSource(Protocol):
    """Provides all tools."""

    async def snapshot(self, *, version: int | None = None) -> ToolSnapshot:
        """Return the tools as they were some moments ago, or at `version` at least."""
        ...


class ContextService:
    """Gathers the layers of a prompt besides the conversation."""

    def __init__(
        self,
        prompts: BasePrompts,
        tools: ToolSource,
        search: ContextSearch,
        budgets: PromptBudgets,
        *,
        windows: ContextWindows,
    ) -> None:
        self._prompts = prompts
        self._tools = tools
        self._search = search
        self._budgets = budgets
        self._windows = windows

    @property
    def most_tokens(self) -> int:
        """How much of a conversation may fit into a prompt, by the uncorrected estimate."""
        return int(self._budgets.prompt / LEAST_CORRECTION)

    async def known_tools(self) -> ToolSnapshot:
        """Return all tools, of which a turn is offered some; call it before a transaction begins.

        Errors: DatabaseUnavailableError.
        """
        return await self._tools.snapshot()

    def gather_known(self, facts: TurnFacts, tools: ToolSnapshot) -> TurnContext | None:
        """Return the turn's context, or None if something must be read or searched first.

        Idempotency: a context that was gathered before is returned again.
        """
        if facts.stored is not None:
            layers, sources = facts.stored
            size = _tools_tokens(layers.tools, layers.offered)
            return self._with_window(facts, layers, sources, tools_tokens=size)
        if tools.version < facts.tools_version:
            return None
        base = self._prompts.known(facts.active_prompt)
        if base is None:
            return None
        without = self._context(facts, tools, base, _NOTHING_FOUND)
        # If the message does not fit, nothing is searched for it.
        return without if without.window is None or not self._is_to_search(facts) else None

    async def gather(self, user_id: UserId, facts: TurnFacts, tools: ToolSnapshot) -> TurnContext:
        """Return the turn's context, with the memories and passages found for its message.

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
        """Give each layer at most half of the tokens that are left, so that the next have some."""
        content = filled(base.content, now=datetime.now(UTC), time_zone=facts.time_zone)
        system = system_layer(content)
        # What is never cut comes first.
        left = self._budget(facts) - tokens_of(system) - _newest(facts)
        # The same for most messages: the provider's cache begins with the tools.
        offered = _tools_of(facts, tools, min(left // 2, self._most(facts) // _MOST_TOOLS))
        layers = PromptLayers(
            version=base.version, system=system, tools=offered.layer, offered=offered.tools
        )
        left -= offered.tokens
        user = user_layer(
            name=facts.display_name,
            language=facts.language,
            time_zone=facts.time_zone,
            instructions=facts.instructions,
            budget_tokens=min(self._budgets.user, left // 2),
        )
        left -= tokens_of(user)
        summary = "" if facts.summary is None else summary_layer(facts.summary.content)
        if tokens_of(summary) > left // 2:
            summary = ""
        left -= tokens_of(summary)
        context, sources = quoted(
            findings.memories,
            findings.passages,
            budget_tokens=min(self._budgets.context, left // 2),
        )
        layers = layers.model_copy(update={"user": user, "summary": summary, "context": context})
        return self._with_window(
            facts, layers, sources, tools_tokens=offered.tokens, missing=findings.missing
        )

    def _with_window(
        self,
        facts: TurnFacts,
        layers: PromptLayers,
        sources: tuple[ContextSource, ...],
        *,
        tools_tokens: int,
        missing: tuple[str, ...] = (),
    ) -> TurnContext:
        tokens = {
            "system": tokens_of(layers.system),
            "tools": tools_tokens,
            "user": tokens_of(layers.user),
            "summary": tokens_of(layers.summary),
            "context": tokens_of(layers.context),
        }
        budget = self._budget(facts) - sum(tokens.values())
        # The same for all turns at a model, so that they send the same of earlier ones.
        result_tokens = min(self._budgets.results, self._most(facts) // _MOST_RESULTS)
        window = None
        if sizes := facts.sizes:
            window = fit(
                sizes,
                budget_tokens=budget,
                result_tokens=result_tokens,
                whole_from=facts.whole_from,
            )
        if window is not None:
            tokens["conversation"] = window.tokens
        return TurnContext(
            layers,
            sources,
            tokens,
            window,
            missing,
            facts.correction,
            history_tokens=budget,
            result_tokens=result_tokens,
            skipped=None if window is None else _skipped(facts.branch, window),
            summary_id=facts.summary.id if facts.summary and layers.summary else None,
            is_cut=window is not None and _is_cut(facts, window, layers),
            is_long=window is not None and _is_long(facts, window, budget),
        )

    def _budget(self, facts: TurnFacts) -> int:
        """Return how many tokens the prompt may have, by the uncorrected estimate."""
        return int(self._most(facts) / facts.correction)

    def _most(self, facts: TurnFacts) -> int:
        return min(self._budgets.prompt, self._windows.prompt_limit(facts.model))


def _skipped(branch: FollowedBranch, window: Window) -> tuple[UUID, ...] | None:
    others = (message for message in branch.others if message.turn_id >= window.first_turn_id)
    skipped = tuple(message.id for message in others)
    return skipped if len(skipped) <= _MOST_SKIPPED else None


def _is_cut(facts: TurnFacts, window: Window, layers: PromptLayers) -> bool:
    """Return whether some of the conversation is neither sent nor summarised."""
    is_summarised = facts.summary is not None and facts.summary.is_next and bool(layers.summary)
    begins_late = facts.branch.before_id is not None
    return _is_shortened(facts, window) or (begins_late and not is_summarised)


def _is_long(facts: TurnFacts, window: Window, budget_tokens: int) -> bool:
    """Return whether the conversation nears its budget, or was cut to it."""
    return _is_shortened(facts, window) or window.tokens > budget_tokens * _LONG


def _is_shortened(facts: TurnFacts, window: Window) -> bool:
    return window.first_turn_id != facts.branch.sent[0].turn_id


def _newest(facts: TurnFacts) -> int:
    return facts.branch.sent[-1].tokens if facts.branch.sent else 0


def _fitting(tools: Sequence[ToolDefinition], *, budget_tokens: int) -> list[ToolDefinition]:
    """Return the tools that fit, in their order.

    Servers take turns, each with the next of its tools, so that one with many, or with a huge one,
    leaves room for those of others.
    """
    before: Counter[str] = Counter()
    ranked: list[tuple[int, ToolDefinition]] = []
    for tool in tools:
        ranked.append((0 if tool.server is None else before[tool.server], tool))
        before[tool.server or ""] += 1
    kept: set[str] = set()
    for _, tool in sorted(ranked, key=lambda pair: pair[0]):
        schema = json.dumps(tool.input_schema)
        tokens = tokens_of(f"{tool.name}{tool.instructions}{tool.description}{schema}")
        if tokens <= budget_tokens and len(kept) < MAX_TOOLS:
            kept.add(tool.name)
            budget_tokens -= tokens
    if len(kept) < len(tools):
        _log.warning("tools_left_out", offered=len(kept), left_out=len(tools) - len(kept))
    return [tool for tool in tools if tool.name in kept]


class _Offered(NamedTuple):
    """The tools of a prompt: their instructions, what the model is offered, and the tokens."""

    layer: str
    tools: tuple[OfferedTool, ...]
    tokens: int


def _tools_of(facts: TurnFacts, tools: ToolSnapshot, budget_tokens: int) -> _Offered:
    """Return the tools that the turn's model is offered, as far as they fit.

    To serialize and count them takes longer than the rest of a prompt; most turns have the same.
    """
    key = (facts.audience, facts.disabled_tools, facts.asked_tools, budget_tokens)
    offered: _Offered | None = tools.derived.get(repr(key))
    if offered is None:
        usable = tools.offered_to(facts.audience, disabled=facts.disabled_tools)
        if facts.asked_tools is not None:
            usable = tuple(tool for tool in usable if tool.name in facts.asked_tools)
        fitting = _fitting(usable, budget_tokens=budget_tokens)
        layer, schemas = tools_layer(fitting), offered_tools(fitting)
        offered = _Offered(layer, schemas, _tools_tokens(layer, schemas))
        tools.derived[repr(key)] = offered
    return offered


def _tools_tokens(layer: str, offered: Sequence[OfferedTool]) -> int:
    """Return the tokens of the tools: their instructions, descriptions and schemas."""
    described = (tool.description + json.dumps(tool.input_schema) for tool in offered)
    return tokens_of("".join((layer, *described)))
