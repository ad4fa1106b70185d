"""What a message may ask of the turn that answers it; stored with the turn.

Regenerating takes the same options, and those of the earlier turn for what it leaves out.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag
from pydantic.alias_generators import to_camel

from schema.tools import ToolName
from schema.wire import RequestModel, StorableObject, StorableText

LEAST_THINKING_TOKENS: Final = 1_024
"""Providers take no smaller budget."""

UNION_TAGS: Final = frozenset({"(word)", "(budget)"})
"""Which form of a value an error is about; no part of a field's path."""

_Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


class ThinkingBudget(RequestModel):
    """How many tokens the model may think with, at most."""

    budget_tokens: Annotated[int, Field(ge=LEAST_THINKING_TOKENS, le=1_000_000, examples=[4096])]


def _form_of_thinking(value: object) -> str:
    return "(word)" if isinstance(value, str) else "(budget)"


Thinking: TypeAlias = Annotated[
    Annotated[Literal["off", "on"], Tag("(word)")] | Annotated[ThinkingBudget, Tag("(budget)")],
    Discriminator(_form_of_thinking),
]

StopSequence = Annotated[StorableText, Field(min_length=1, max_length=100, pattern=r"\S")]


class TurnOptions(RequestModel):
    """What a turn was asked for beside its question; null is the default."""

    tools: Annotated[
        tuple[ToolName, ...] | None,
        Field(
            strict=False,
            max_length=250,
            description="The names of the tools that the model may use; none if empty. By default "
            "all that you may use.",
            examples=[["calculator"]],
        ),
    ] = None
    thinking: Annotated[
        Thinking | None,
        Field(
            description="Whether the model thinks before it answers: `off`, `on`, or with at most "
            "so many tokens. By default the model decides, and its thoughts may not be shown.",
            examples=["on"],
        ),
    ] = None
    temperature: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    top_k: Annotated[int | None, Field(ge=1, le=1_000)] = None
    max_tokens: Annotated[
        _Tokens | None,
        Field(
            description="The most tokens of each answer of the model, its thinking included. The "
            "server's settings limit it."
        ),
    ] = None
    stop_sequences: Annotated[
        tuple[StopSequence, ...] | None,
        Field(strict=False, max_length=16, description="Texts that end the answer."),
    ] = None
    response_schema: Annotated[
        StorableObject | None,
        Field(
            description="A JSON schema (2020-12) that the answer has to fit: see `structured` of "
            "the answer's message.",
            examples=[
                {
                    "type": "object",
                    "properties": {"city": {"type": "string"}},
                    "required": ["city"],
                }
            ],
        ),
    ] = None

    def stored(self) -> dict[str, Any] | None:
        """Return what the turn's row keeps: what was given, None if nothing was.

        The schema is kept as text: models write properties in their order, which `jsonb` loses.
        """
        given = {name for name in TurnOptions.model_fields if getattr(self, name) is not None}
        options = self.model_dump(mode="json", by_alias=True, include=given)
        if _SCHEMA in options:
            options[_SCHEMA] = json.dumps(options[_SCHEMA], ensure_ascii=False)
        return options or None

    def with_earlier(self, earlier: "TurnOptions") -> "TurnOptions":
        """Return the options, and those of an earlier turn for fields that were not sent."""
        sent = self.model_fields_set & TurnOptions.model_fields.keys()
        return earlier.model_copy(update={name: getattr(self, name) for name in sent})


def options_as_sent(stored: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the options of a turn's row as clients send them."""
    if stored is None or _SCHEMA not in stored:
        return None if stored is None else dict(stored)
    return {**stored, _SCHEMA: json.loads(stored[_SCHEMA])}


def options_of(stored: Mapping[str, Any] | None) -> TurnOptions:
    """Return the options that a turn's row keeps, without those of a later release."""
    sent = options_as_sent(stored) or {}
    known = {name: value for name, value in sent.items() if name in _NAMES}
    return TurnOptions.model_validate(known, strict=False)


_SCHEMA: Final = "responseSchema"
_NAMES: Final = frozenset(map(to_camel, TurnOptions.model_fields))
