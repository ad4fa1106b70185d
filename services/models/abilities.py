"""What each model takes: thinking, sampling parameters, structured output, the longest answer.

Providers refuse a whole request for one parameter that its model doesn't take.
Source: the Messages API's documentation of thinking ("Thinking support, defaults, and rejected
configurations by model") and its migration guides, of November 2026. Models of other servers are
asked for what a message wishes; what they refuse is learnt (services/turns/options.py).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal, TypeAlias


class ThinkingForm(StrEnum):
    """How a model is asked to think: with a budget of tokens, or as it sees fit."""

    NONE = "none"
    BUDGET = "budget"
    ADAPTIVE = "adaptive"


class Sampling(StrEnum):
    """Which sampling parameters a model takes: none, `temperature` or `topP`, or all of them."""

    NONE = "none"
    ONE = "one"
    ALL = "all"


ThinkingOff: TypeAlias = Literal["disabled", "between_tools"]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model takes.

    `off` is what switches thinking off, None where nothing does. `max_output_tokens` is the longest
    answer, thinking included, where it is known.
    """

    thinking: ThinkingForm = ThinkingForm.BUDGET
    thinks_by_default: bool = False
    off: ThinkingOff | None = "disabled"
    sampling: Sampling = Sampling.ALL
    structured: bool = True
    max_output_tokens: int | None = None

    @property
    def always_thinks(self) -> bool:
        """Whether its thinking can't be switched off."""
        return self.thinks_by_default and self.off is None


UNKNOWN: Final = Abilities()
"""Of a model that nothing is known of."""

_CLAUDE: Final = re.compile(
    r"claude-(?:(?P<before>\d(?:[-.]\d)?)-)?(?P<family>opus|sonnet|haiku|fable|mythos)"
    r"(?:-(?P<behind>\d(?:[-.]\d{1,2})?)(?!\d))?"
)
_ALWAYS_THINK: Final = frozenset({"fable", "mythos"})


@lru_cache(maxsize=256)
def abilities_of(model: str) -> Abilities:
    """Return what a model takes, by its name; names of cloud providers contain Anthropic's."""
    named = _CLAUDE.search(model.lower())
    if named is None:
        return UNKNOWN
    family, version = named["family"], _version(named["behind"] or named["before"])
    if family in _ALWAYS_THINK:
        version = max(version, (5, 0))
    return Abilities(
        thinking=_form(family, version),
        thinks_by_default=version >= (5, 0),
        off=_off(family, version),
        sampling=_sampling(version),
        structured=version >= (4, 5),
        max_output_tokens=_longest(family, version),
    )


def _version(text: str | None) -> tuple[int, int]:
    if text is None:
        return 3, 0
    major, _, minor = text.replace(".", "-").partition("-")
    return int(major), int(minor or 0)


def _form(family: str, version: tuple[int, int]) -> ThinkingForm:
    if version >= (4, 6):
        return ThinkingForm.ADAPTIVE
    thinks = version >= ((4, 0) if family == "haiku" else (3, 7))
    return ThinkingForm.BUDGET if thinks else ThinkingForm.NONE


def _off(family: str, version: tuple[int, int]) -> ThinkingOff | None:
    if family in _ALWAYS_THINK or (family == "opus" and version >= (5, 5)):
        return None
    return "between_tools" if family == "sonnet" and version >= (5, 5) else "disabled"


def _sampling(version: tuple[int, int]) -> Sampling:
    if version >= (4, 7):
        return Sampling.NONE
    return Sampling.ONE if version >= (4, 1) else Sampling.ALL


def _longest(family: str, version: tuple[int, int]) -> int:
    if version >= (4, 6):
        return 128_000
    if version < (3, 7):
        return 8_192 if version >= (3, 5) else 4_096
    return 32_000 if family == "opus" and version < (4, 5) else 64_000
