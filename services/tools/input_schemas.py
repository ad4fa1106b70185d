"""Which JSON schemas of external tools are accepted: bounded, complete, and of objects for inputs.

The validator runs a schema from outside: it must not fetch anything, exhaust the stack or loop.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Final

from jsonschema_rs import Draft202012Validator, ValidationError
from pydantic import JsonValue

from services.tools.offered_schema import problem_of_offer
from services.tools.schema_work import is_too_much_work, referenced_part
from services.tools.validation import validator_of

_LONGEST_CHARS: Final = 64 * 1024
_DEEPEST: Final = 20
_MOST_STEPS: Final = 10_000
"""For checking an empty value."""
_REFERENCES: Final = ("$ref", "$dynamicRef")
# A schema may have an id; in a part of it, an id would change what references mean.
_NAMES: Final = ("$id", "$anchor", "$dynamicAnchor", "$recursiveRef", "$vocabulary")


def problem_of_schema(schema: Mapping[str, JsonValue]) -> str | None:
    """Return why a schema can't be used for a tool's input, or None.

    The text continues a sentence that begins with "the schema", and quotes nothing of it.
    """
    problem = problem_of_form(schema)
    if problem is not None:
        return problem
    kinds = schema.get("type", "object")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        return "must have the type `object`"
    try:
        validator_of(schema)
    except ValidationError:
        return "has a part that inputs can't be validated against"
    return problem_of_offer(schema)


def problem_of_form(schema: Mapping[str, JsonValue]) -> str | None:
    """Return why nothing can be validated against a schema, or None; the text is as above."""
    problem = _problem_of_size(schema) or _problem_of_names(schema)
    if problem is not None:
        return problem
    try:
        _metaschema().validate(dict(schema))
    except ValidationError as error:
        return f"is not a valid JSON schema (2020-12): see `{_place(error)}`"
    # An endless reference is found by following it.
    if is_too_much_work(schema, {}, most_steps=_MOST_STEPS):
        return "refers to itself endlessly, or too often"
    return None


def _problem_of_size(schema: Mapping[str, JsonValue]) -> str | None:
    if any(depth > _DEEPEST for depth, _ in _parts(schema)):
        return f"is nested more than {_DEEPEST} levels deep"
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (UnicodeEncodeError, ValueError):
        return "contains invalid Unicode, NaN or Infinity"
    if any("\x00" in words for _, part in _parts(schema) for words in _texts(part)):
        return "contains a NUL character"
    if len(text) > _LONGEST_CHARS:
        return f"is longer than {_LONGEST_CHARS:,} characters"
    return None


def _problem_of_names(schema: Mapping[str, JsonValue]) -> str | None:
    """Refuse references that lead outside the schema, or nowhere. Names of properties are free."""
    for depth, part in _parts(schema):
        if not isinstance(part, Mapping):
            continue
        if any(isinstance(part.get(name), str) for name in _NAMES[depth == 1 :]):
            return f"must not contain any of {', '.join(f'`{name}`' for name in _NAMES)}"
        for reference in (part.get(keyword) for keyword in _REFERENCES):
            if not isinstance(reference, str):
                continue
            if reference != "#" and not reference.startswith("#/"):
                return "refers to something outside it"
            try:
                referenced_part(schema, reference)
            except LookupError:
                return "refers to a part that does not exist"
    return None


def _parts(schema: Mapping[str, JsonValue]) -> Iterator[tuple[int, JsonValue]]:
    """Yield all values with their depth, the shallowest first, without recursion."""
    waiting: list[tuple[int, JsonValue]] = [(1, dict(schema))]
    for depth, part in waiting:
        yield depth, part
        if depth > _DEEPEST:
            return
        if isinstance(part, dict):
            waiting += [(depth + 1, value) for value in part.values()]
        elif isinstance(part, list):
            waiting += [(depth + 1, value) for value in part]


def _texts(part: JsonValue) -> Iterable[str]:
    if isinstance(part, str):
        return (part,)
    return part.keys() if isinstance(part, dict) else ()


@cache
def _metaschema() -> Draft202012Validator:
    """Return the validator of schemas; it is part of the library, so nothing is fetched."""
    metaschema = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    return Draft202012Validator(metaschema, validate_formats=True)


def _place(error: ValidationError) -> str:
    place = "/".join(str(step) for step in error.instance_path)
    return place[:100].encode(errors="replace").decode() or "type"
