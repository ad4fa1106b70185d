"""Owns the words in which a model learns why its input does not satisfy a tool's schema.

The messages of jsonschema itself repeat the offending input, which may be huge.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from jsonschema import ValidationError
from jsonschema.exceptions import relevance

_MAX_ERRORS = 3
_MAX_QUOTED_CHARS = 200


def explain(errors: Iterable[ValidationError]) -> str | None:
    """Return what was expected where, the most telling errors first; None without an error."""
    # A malformed list can hold an error for each item: look at enough of them, not at all.
    worst_first = sorted(islice(errors, 100), key=relevance, reverse=True)
    sentences = list(dict.fromkeys(map(_sentence, worst_first)))
    return "; ".join(sentences[:_MAX_ERRORS]) if sentences else None


def shortened(text: str) -> str:
    """Return the text as it can be quoted in a message: not too long, and valid Unicode."""
    text = text[: _MAX_QUOTED_CHARS + 1].encode(errors="replace").decode()
    return text if len(text) <= _MAX_QUOTED_CHARS else f"{text[:_MAX_QUOTED_CHARS]}…"


def _sentence(error: ValidationError) -> str:
    path = shortened(error.json_path.removeprefix("$").removeprefix("."))
    describe = _EXPECTATIONS.get(str(error.validator), _anything_else)
    return f"`{path}`: {describe(error)}" if path else describe(error)


def _wrong_type(error: ValidationError) -> str:
    expected = error.validator_value
    names = [expected] if isinstance(expected, str) else _members(expected)
    return f"expected {' or '.join(names)}, got {_type_name(error.instance)}"


def _missing(error: ValidationError) -> str:
    given = set(_members(error.instance))
    absent = (name for name in _members(error.validator_value) if name not in given)
    return f"required but missing: {_listed(absent)}"


def _not_allowed(error: ValidationError) -> str:
    known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    unknown = (name for name in _members(error.instance) if name not in known)
    return f"not allowed: {_listed(unknown)}; allowed: {_listed(known) or 'nothing'}"


def _not_listed(error: ValidationError) -> str:
    return f"expected one of {_as_json(error.validator_value)}"


def _bounded(words: str) -> Callable[[ValidationError], str]:
    return lambda error: f"expected {words.format(_as_json(error.validator_value))}"


def _anything_else(error: ValidationError) -> str:
    return f"does not satisfy `{error.validator}` {_as_json(error.validator_value)}"


_EXPECTATIONS: Mapping[str, Callable[[ValidationError], str]] = {
    "type": _wrong_type,
    "required": _missing,
    "additionalProperties": _not_allowed,
    "enum": _not_listed,
    "const": _bounded("{}"),
    "minimum": _bounded("at least {}"),
    "maximum": _bounded("at most {}"),
    "exclusiveMinimum": _bounded("more than {}"),
    "exclusiveMaximum": _bounded("less than {}"),
    "minLength": _bounded("at least {} characters"),
    "maxLength": _bounded("at most {} characters"),
    "minItems": _bounded("at least {} items"),
    "maxItems": _bounded("at most {} items"),
    "pattern": _bounded("text that matches the pattern {}"),
    "format": _bounded("text in the format {}"),
}


def _members(value: object) -> list[str]:
    return [str(member) for member in value] if isinstance(value, Iterable) else []


def _listed(names: Iterable[str]) -> str:
    return shortened(", ".join(f"`{shortened(name)}`" for name in islice(names, 20)))


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
