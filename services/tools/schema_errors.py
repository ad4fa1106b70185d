"""Explanations for the model of why its input does not satisfy a tool's schema.

The messages of the validator itself repeat the offending input, which may be huge.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from jsonschema_rs import ValidationError

_MAX_ERRORS: Final = 3
_MAX_QUOTED_CHARS: Final = 200
_MAX_CONSIDERED: Final = 100
"""The number of errors considered: a malformed list can have one for each item."""

_Names = Mapping[str, str]
SAME_NAMES: Final[_Names] = MappingProxyType({})


def explain(
    errors: Iterable[ValidationError], schema: Mapping[str, Any], names: _Names = SAME_NAMES
) -> str | None:
    """Return what was expected where, the shallowest errors first; None without an error.

    `names` are the reader's names of properties, where they are not the schema's.
    """
    found = sorted(islice(errors, _MAX_CONSIDERED), key=lambda error: len(error.instance_path))
    sentences = list(dict.fromkeys(_sentence(error, found, schema, names) for error in found))
    return "; ".join(sentences[:_MAX_ERRORS]) if sentences else None


def shortened(text: str) -> str:
    """Return the text as it can be quoted in a message: not too long, and valid Unicode."""
    text = text[: _MAX_QUOTED_CHARS + 1].encode(errors="replace").decode()
    return text if len(text) <= _MAX_QUOTED_CHARS else f"{text[:_MAX_QUOTED_CHARS]}…"


def _sentence(
    error: ValidationError,
    all_errors: Iterable[ValidationError],
    schema: Mapping[str, Any],
    names: _Names,
) -> str:
    path = shortened(_path(error.instance_path, names))
    keyword = str(error.schema_path[-1]) if error.schema_path else "false"
    if error.kind.name == "required":
        words = f"required but missing: {_listed(_missing(error, all_errors), names)}"
    elif error.kind.name in {"additionalProperties", "unevaluatedProperties"}:
        words = _not_allowed(error, schema, names)
    elif error.kind.name in {"anyOf", "oneOf"}:
        words = _no_alternative(error, schema, names)
    elif error.kind.name == "not" and names:
        words = "does not satisfy `not`"
    else:
        describe = _EXPECTATIONS.get(error.kind.name)
        words = _unsatisfied(keyword, error) if describe is None else describe(error)
    return f"`{path}`: {words}" if path else words


def _path(steps: Iterable[str | int], names: _Names) -> str:
    joined = "".join(
        f"[{step}]" if isinstance(step, int) else f".{names.get(step, step)}" for step in steps
    )
    return joined.removeprefix(".")


def _missing(error: ValidationError, all_errors: Iterable[ValidationError]) -> list[str]:
    """Return all that is missing in the same place; each error names one."""
    return [
        other.kind.as_dict()["property"]
        for other in all_errors
        if other.kind.name == "required" and other.instance_path == error.instance_path
    ]


def _not_allowed(error: ValidationError, schema: Mapping[str, Any], names: _Names) -> str:
    known = _at(schema, error.schema_path[:-1]).get("properties", {})
    unexpected = _listed(error.kind.as_dict()["unexpected"], names)
    return f"not allowed: {unexpected}; allowed: {_listed(known, names) or 'nothing'}"


def _no_alternative(error: ValidationError, schema: Mapping[str, Any], names: _Names) -> str:
    branches: list[list[ValidationError]] = error.kind.as_dict()["context"]
    if not all(branches):
        return f"matches several of the alternatives of `{error.kind.name}`, not one"
    first = [_sentence(errors[0], errors, schema, names) for errors in branches[:_MAX_ERRORS]]
    listed = "; ".join(f"({number}) {words}" for number, words in enumerate(first, 1))
    return shortened(f"matches none of the alternatives of `{error.kind.name}`: {listed}")


def _at(schema: Mapping[str, Any], path: Iterable[str | int]) -> Mapping[str, Any]:
    part: Any = schema
    for step in path:
        part = part[step]
    return part if isinstance(part, Mapping) else {}


def _unsatisfied(keyword: str, error: ValidationError) -> str:
    context = error.kind.as_dict()
    context.pop("error", None)
    values = "".join(f" {_as_json(value)}" for value in list(context.values())[:1])
    return f"does not satisfy `{keyword}`{values}"


def _bounded(words: str, attribute: str = "limit") -> Callable[[ValidationError], str]:
    def describe(error: ValidationError) -> str:
        context = error.kind.as_dict()
        # A pattern that took too long comes without.
        if attribute not in context:
            return _unsatisfied(str(error.kind.name), error)
        return f"expected {words.format(_as_json(context[attribute]))}"

    return describe


def _wrong_type(error: ValidationError) -> str:
    types = error.kind.as_dict()["types"]
    return f"expected {' or '.join(types)}, got {_type_name(error.instance)}"


_EXPECTATIONS: Final[Mapping[str, Callable[[ValidationError], str]]] = {
    "type": _wrong_type,
    "enum": _bounded("one of {}", "options"),
    "const": _bounded("{}", "expected_value"),
    "minimum": _bounded("at least {}"),
    "maximum": _bounded("at most {}"),
    "exclusiveMinimum": _bounded("more than {}"),
    "exclusiveMaximum": _bounded("less than {}"),
    "minLength": _bounded("at least {} characters"),
    "maxLength": _bounded("at most {} characters"),
    "minItems": _bounded("at least {} items"),
    "maxItems": _bounded("at most {} items"),
    "pattern": _bounded("text that matches the pattern {}", "pattern"),
    "format": _bounded("text in the format {}", "format"),
}


def _listed(properties: Iterable[str], names: _Names) -> str:
    shown = (names.get(name, name) for name in islice(properties, 20))
    return shortened(", ".join(f"`{shortened(name)}`" for name in shown))


def _as_json(value: object) -> str:
    return shortened(json.dumps(value, ensure_ascii=False, default=str))


def _type_name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
