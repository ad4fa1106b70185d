"""Answers that have to fit a JSON schema: how they are asked for, read and checked.

The provider constrains an answer where it takes the schema, and the model is asked in words where
it doesn't. Either way the answer is text, and checked by the whole schema
(docs/decisions/0073-answers-as-values.md).
"""

import asyncio
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import asyncpg
from jsonschema_rs import ValidationError
from pydantic import JsonValue

from schema.turns import TurnStatus
from services.models.assembly import UnreadableInputError, storable_json
from services.models.event_stream import MAX_LINE_BYTES, parse_json
from services.tools.validation import InputValidation
from services.turns.tool_work import EndingStep

_WORDS: Final = (
    "Answer with one JSON value and nothing else: no text around it, no code block. It must fit "
    "this JSON schema:\n{}"
)
# Formats of text that providers take.
_FORMATS: Final = frozenset(
    {
        *("date-time", "time", "date", "duration", "email"),
        *("hostname", "uri", "ipv4", "ipv6", "uuid"),
    }
)
_PLAIN: Final = (str, int, float, bool, type(None))
_FENCE: Final = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


class ReadAnswer(NamedTuple):
    """The value that an answer is; `problem` is why it is none, or doesn't fit."""

    value: JsonValue = None
    problem: str | None = None


def words_for(schema: Mapping[str, Any]) -> str:
    """Return what asks a model for an answer that fits."""
    return _WORDS.format(json.dumps(schema, ensure_ascii=False))


def read_answer(text: str) -> ReadAnswer:
    """Return the value that an answer is, with or without a code block around it."""
    text = text.strip()
    fenced = _FENCE.fullmatch(text)
    written = text if fenced is None else fenced[1]
    if len(written) > MAX_LINE_BYTES:
        return ReadAnswer(problem="it is too long")
    try:
        return ReadAnswer(storable_json(parse_json(written)[0]))
    except UnreadableInputError:
        return ReadAnswer(problem="it has numbers that are not finite, or is nested too deeply")
    except ValueError:
        return ReadAnswer(problem="it is not one valid JSON value")


def structured_value(
    turn: asyncpg.Record, steps: Sequence[EndingStep], *, status: TurnStatus
) -> JsonValue:
    """Return the value that the last step answered with, if the turn was asked for one."""
    is_asked_for = bool(turn["options"]) and "responseSchema" in turn["options"]
    is_given = status is TurnStatus.COMPLETED and bool(steps) and steps[-1].fits
    if not (is_asked_for and is_given):
        return None
    return read_answer(steps[-1].text).value


class AnswerChecks:
    """Checks answers by their schemas, beside the event loop."""

    def __init__(self) -> None:
        self._validation = InputValidation()

    async def problem(self, schema: Mapping[str, Any], text: str) -> str | None:
        """Return why an answer does not fit, or None."""
        return await asyncio.to_thread(self._problem, schema, text)

    def _problem(self, schema: Mapping[str, Any], text: str) -> str | None:
        answer = read_answer(text)
        if answer.problem is not None:
            return answer.problem
        try:
            return self._validation.problem(schema, answer.value)
        except ValidationError:
            return "the schema can't be applied"


def constrained_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema as providers take it, or None where that would allow too little.

    It closes objects, and keeps what it can't express as a description. What it allows beyond the
    schema, the check finds.
    """
    try:
        if _loses_by_closing(schema):
            return None
        return _as_taken(_with_single_types(schema))
    except (AttributeError, TypeError, ValueError):
        return None


def _as_taken(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what providers take of a schema, the rest of it as words in its description.

    The official SDK changes schemas in the same way, which a test compares.
    Errors: AttributeError, TypeError or ValueError for what they can't take at all.
    """
    rest = dict(schema)
    taken: dict[str, Any] = {}
    if (definitions := rest.pop("$defs", None)) is not None:
        taken["$defs"] = {name: _as_taken(part) for name, part in definitions.items()}
    if (reference := rest.pop("$ref", None)) is not None:
        return taken | {"$ref": reference}
    literals = _literals(rest)
    taken |= literals
    kind = rest.pop("type", None)
    variants = {keyword: rest.pop(keyword, None) for keyword in ("anyOf", "oneOf", "allOf")}
    given = next((word for word, listed in variants.items() if isinstance(listed, list)), None)
    if given is not None:
        name = "anyOf" if given == "oneOf" else given
        taken[name] = [_as_taken(variant) for variant in variants[given]]
    elif not literals:
        if kind is None:
            raise ValueError("no type")
        taken["type"] = kind
    for keyword in ("description", "title"):
        if (text := rest.pop(keyword, None)) is not None:
            taken[keyword] = text
    if not literals:
        taken |= _of_type(kind, rest)
    if rest:
        words = "{" + ", ".join(f"{keyword}: {value}" for keyword, value in rest.items()) + "}"
        said = taken.get("description")
        taken["description"] = words if said is None else f"{said}\n\n{words}"
    return taken


def _literals(rest: dict[str, Any]) -> dict[str, Any]:
    """Take from the rest what an answer may be, where all of that is plain."""
    literals: dict[str, Any] = {}
    listed = rest.get("enum")
    if isinstance(listed, list) and listed and all(isinstance(each, _PLAIN) for each in listed):
        literals["enum"] = rest.pop("enum")
    if "const" in rest and isinstance(rest["const"], _PLAIN):
        literals["const"] = rest.pop("const")
    return literals


def _of_type(kind: object, rest: dict[str, Any]) -> dict[str, Any]:
    """Take from the rest what belongs to a type."""
    taken: dict[str, Any] = {}
    match kind:
        case "object":
            properties = rest.pop("properties", {})
            taken["properties"] = {name: _as_taken(part) for name, part in properties.items()}
            taken["additionalProperties"] = False
            rest.pop("additionalProperties", None)
            if (required := rest.pop("required", None)) is not None:
                taken["required"] = required
        case "string":
            taken = _if_among(_FORMATS, "format", rest)
        case "array":
            if (items := rest.pop("items", None)) is not None:
                taken["items"] = _as_taken(items)
            taken |= _if_among((0, 1), "minItems", rest)
        case "boolean" | "integer" | "number" | "null" | None:
            pass
        case _:
            raise ValueError("no such type")
    return taken


def _if_among(values: Collection[Any], keyword: str, rest: dict[str, Any]) -> dict[str, Any]:
    """Take a keyword from the rest where its value is one of these; else leave it behind others."""
    value = rest.pop(keyword, None)
    if value in values:
        return {keyword: value}
    if value:
        rest[keyword] = value
    return {}


def _loses_by_closing(schema: Any) -> bool:  # noqa: ANN401 -- any JSON
    """Return whether an object would lose properties that the schema doesn't name."""
    if not isinstance(schema, dict):
        return False
    extra = schema.get("additionalProperties")
    may_be_object = schema.get("type") == "object" or "object" in _listed(schema.get("type"))
    if "patternProperties" in schema or "allOf" in schema or isinstance(extra, dict):
        return True
    if may_be_object and not schema.get("properties"):
        return True
    return any(map(_loses_by_closing, _parts(schema)))


def _with_single_types(schema: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return the schema with alternatives in place of lists of types."""
    if not isinstance(schema, dict):
        return schema
    types = _listed(schema.get("type"))
    if types:
        return {"anyOf": [_with_single_types({**schema, "type": kind}) for kind in types]}
    changed = dict(schema)
    for keyword in _NAMED:
        if isinstance(schema.get(keyword), dict):
            changed[keyword] = {
                name: _with_single_types(part) for name, part in schema[keyword].items()
            }
    for keyword in _LISTED:
        if isinstance(schema.get(keyword), list):
            changed[keyword] = [_with_single_types(part) for part in schema[keyword]]
    if isinstance(schema.get("items"), dict):
        changed["items"] = _with_single_types(schema["items"])
    return changed


_NAMED: Final = ("properties", "$defs")
_LISTED: Final = ("anyOf", "oneOf")


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _parts(schema: Mapping[str, Any]) -> list[Any]:
    named = [schema[keyword] for keyword in _NAMED if isinstance(schema.get(keyword), dict)]
    parts = [part for parts in named for part in parts.values()]
    for keyword in _LISTED:
        parts += _listed(schema.get(keyword))
    return [*parts, schema.get("items")]
