"""How a model call is sent: a turn's options as the model that is called takes them.

A message that asks for what its model doesn't take is refused when it is accepted. What another
model doesn't take, which answers in its place, is left out here, as is what a provider refuses
although its model was thought to take it; a notice says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import structlog
from pydantic.alias_generators import to_camel

from schema.events import NoticeEvent
from schema.turn_options import LEAST_THINKING_TOKENS, ThinkingBudget, TurnOptions
from services.models.abilities import Abilities, Sampling, ThinkingForm, abilities_of
from services.models.failures import FailureKind, ModelCallError, Refusable
from services.turns.options import (
    LEAST_TOP_P_WITH_THINKING,
    MOST_THINKING_TOKENS,
    thinking_tokens,
    thinks,
)
from services.turns.structured_answers import constrained_schema, words_for

if TYPE_CHECKING:
    # At run time it would import the whole SDK.
    from anthropic.types import OutputConfigParam, ThinkingConfigParam

_log = structlog.get_logger(__name__)

_MOST_FOR_LOW_EFFORT: Final = 2_048
_MOST_FOR_MEDIUM_EFFORT: Final = 8_192

_Effort: TypeAlias = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class CallSettings:
    """How a model call is sent, as its model takes it; `left_out` is what the model doesn't take.

    With `schema` the answer has to fit it; `is_constrained` says that the provider sees to that,
    otherwise the model is asked in words. Units: `max_tokens` includes thinking; `longest` is what
    it was before a budget shortened it.
    """

    max_tokens: int
    longest: int
    thinking: "ThinkingConfigParam | None" = None
    effort: _Effort | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    stop_sequences: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    is_constrained: bool = False
    left_out: frozenset[str] = frozenset()
    refused: frozenset[Refusable] = frozenset()

    @property
    def output(self) -> "OutputConfigParam | None":
        """The effort, and the schema where the provider takes it."""
        output: OutputConfigParam = {}
        if self.effort is not None:
            output["effort"] = self.effort
        strict = constrained_schema(self.schema) if self.schema and self.is_constrained else None
        if strict is not None:
            output["format"] = {"type": "json_schema", "schema": strict}
        return output or None

    @property
    def instructions(self) -> str | None:
        """What the model is asked for in words."""
        if self.schema is None or (self.output or {}).get("format"):
            return None
        return words_for(self.schema)

    def granted(self, max_tokens: int) -> "CallSettings":
        """Return the settings for a shorter answer: at most half of it for thinking."""
        if max_tokens >= self.max_tokens:
            return self
        shorter = replace(self, max_tokens=max_tokens)
        if self.thinking is None or self.thinking["type"] != "enabled":
            return shorter
        tokens = min(self.thinking["budget_tokens"], max_tokens // 2)
        if tokens < LEAST_THINKING_TOKENS:
            return replace(shorter, thinking=None)
        return replace(shorter, thinking={"type": "enabled", "budget_tokens": tokens})

    def without(self, part: Refusable) -> "CallSettings | None":
        """Return the settings without what a provider refused; None if it wasn't asked for."""
        refused = self.refused | {part}
        match part:
            case Refusable.STRUCTURED if self.is_constrained:
                return replace(self, is_constrained=False, refused=refused)
            case Refusable.THINKING if self.thinking is not None:
                left_out = self.left_out | {"thinking"}
                return replace(self, thinking=None, effort=None, left_out=left_out, refused=refused)
            case Refusable.SAMPLING if self.sampling:
                left_out = self.left_out | self.sampling.keys()
                return replace(self, sampling={}, left_out=left_out, refused=refused)
            case _:
                return None


def call_settings(
    options: TurnOptions,
    model: str,
    *,
    longest: int,
    room: int = MOST_THINKING_TOKENS,
    refused: Iterable[Refusable] = (),
) -> CallSettings:
    """Return how a call is sent to a model.

    Units: `longest` is how many tokens an answer may have that doesn't say; `room` is what the
    model's window has left for it.
    """
    abilities = abilities_of(model)
    asked = options.max_tokens or longest + thinking_tokens(options)
    max_tokens = min(asked, room, abilities.max_output_tokens or asked)
    settings = CallSettings(
        max_tokens=max_tokens,
        longest=max_tokens,
        stop_sequences=options.stop_sequences or (),
        schema=options.response_schema,
        is_constrained=options.response_schema is not None and abilities.structured,
    )
    settings = _with_sampling(_with_thinking(settings, options, abilities), options, abilities)
    for part in refused:
        settings = settings.without(part) or settings
    return settings


def _with_thinking(
    settings: CallSettings, options: TurnOptions, abilities: Abilities
) -> CallSettings:
    thinking = options.thinking
    is_taken = abilities.thinking is not ThinkingForm.NONE
    if thinking is None or (thinking == "off" and not is_taken):
        return settings
    if (thinking == "off" and abilities.always_thinks) or not is_taken:
        return replace(settings, left_out=settings.left_out | {"thinking"})
    if thinking == "off":
        off = abilities.off or "disabled"
        return replace(
            settings,
            thinking={"type": "between_tools"} if off == "between_tools" else {"type": "disabled"},
        )
    if abilities.thinking is ThinkingForm.ADAPTIVE:
        return replace(
            settings,
            thinking={"type": "adaptive", "display": "summarized"},
            effort=_effort_for(thinking),
        )
    tokens = min(thinking_tokens(options), settings.max_tokens // 2)
    if isinstance(thinking, ThinkingBudget):
        tokens = min(thinking.budget_tokens, settings.max_tokens - 1)
    if tokens < LEAST_THINKING_TOKENS:
        tokens = min(LEAST_THINKING_TOKENS, settings.max_tokens - 1)
    return replace(settings, thinking={"type": "enabled", "budget_tokens": tokens})


def _effort_for(thinking: object) -> _Effort | None:
    """Return the effort that stands for a budget, which newer models don't take."""
    if not isinstance(thinking, ThinkingBudget):
        return None
    if thinking.budget_tokens <= _MOST_FOR_LOW_EFFORT:
        return "low"
    return "medium" if thinking.budget_tokens <= _MOST_FOR_MEDIUM_EFFORT else "high"


def _with_sampling(
    settings: CallSettings, options: TurnOptions, abilities: Abilities
) -> CallSettings:
    given = {"temperature": options.temperature, "top_p": options.top_p, "top_k": options.top_k}
    asked = {
        name: float(value) if name != "top_k" else value
        for name, value in given.items()
        if value is not None
    }
    taken = {name: value for name, value in asked.items() if value != 1 or name == "top_k"}
    if abilities.sampling is Sampling.NONE:
        return replace(settings, left_out=settings.left_out | taken.keys())
    if thinks(options) and settings.thinking is not None:
        few = {"top_p"} if taken.get("top_p", 0) >= LEAST_TOP_P_WITH_THINKING else set()
        kept = {name: value for name, value in taken.items() if name in few}
    elif abilities.sampling is Sampling.ONE and {"temperature", "top_p"} <= asked.keys():
        kept = {name: value for name, value in asked.items() if name != "top_p"}
    else:
        kept = asked
    left_out = settings.left_out | (taken.keys() - kept.keys())
    return replace(settings, sampling=kept, left_out=left_out)


class RefusedOptions:
    """Remembers what providers refuse of requests, by model, as long as the process lives."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[Refusable]] = {}

    def of(self, model: str) -> frozenset[Refusable]:
        """Return what the model's provider refused before."""
        return self._known.get(model, frozenset())

    def remember(self, model: str, refused: frozenset[Refusable]) -> None:
        """Remember what a request went without that was then answered."""
        if new := refused - self.of(model):
            _log.info("options_refused", model=model, options=sorted(new))
            self._known[model] = self.of(model) | refused


def without_refused(settings: CallSettings, error: ModelCallError) -> CallSettings | None:
    """Return the settings without what the provider refused, or None if that is something else.

    A schema may be refused in any words.
    """
    if error.kind not in {FailureKind.REFUSED, FailureKind.TOOLS_REFUSED}:
        return None
    if error.refused_option is not None:
        return settings.without(error.refused_option)
    is_unnamed = error.kind is FailureKind.REFUSED
    return settings.without(Refusable.STRUCTURED) if is_unnamed else None


def left_out_options(settings: CallSettings) -> NoticeEvent | None:
    """Return the notice that the answer goes without some options, if it does."""
    if not settings.left_out:
        return None
    names = ", ".join(f"`{to_camel(name)}`" for name in sorted(settings.left_out))
    return NoticeEvent(
        code="options_left_out",
        message=f"The model doesn't take all options; the answer goes without: {names}.",
    )
