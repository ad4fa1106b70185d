"""Schemas of earlier drafts, and of careless servers, as JSON Schema 2020-12 means them.

Many servers list tuples and exclusive bounds as drafts 4 to 7 have them, or `null` for what they
don't say. What can't be told apart from a mistake stays, and is refused later.
"""

from collections.abc import Mapping
from typing import Any, Final

from services.tools.property_names import LISTED, NAMED, SINGLE

_DEEPEST: Final = 24
"""Deeper than a schema may be."""
# A type of `null` also stands for a schema that could not be read.
_MAY_BE_NULL: Final = frozenset(("const", "default", "enum", "examples", "type"))
_EXCLUSIVE: Final = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def upgraded(schema: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return a schema in the forms of 2020-12."""
    part = {
        keyword: said
        for keyword, said in schema.items()
        if said is not None or keyword in _MAY_BE_NULL
    }
    for exclusive, inclusive in _EXCLUSIVE.items():
        if isinstance(part.get(exclusive), bool):
            is_exclusive = part.pop(exclusive)
            if is_exclusive and inclusive in part:
                part[exclusive] = part.pop(inclusive)
    if isinstance(part.get("items"), list) and "prefixItems" not in part:
        part["prefixItems"] = part.pop("items")
        if "additionalItems" in part:
            part["items"] = part.pop("additionalItems")
        if not part["prefixItems"]:
            del part["prefixItems"]
    if depth < _DEEPEST:
        part |= {keyword: _inner(keyword, said, depth + 1) for keyword, said in part.items()}
    return part


def _inner(keyword: str, said: Any, depth: int) -> Any:  # noqa: ANN401 -- any JSON
    if keyword in NAMED and isinstance(said, dict):
        return {name: _part(inner, depth) for name, inner in said.items()}
    if keyword in LISTED and isinstance(said, list):
        return [_part(inner, depth) for inner in said]
    return _part(said, depth) if keyword in SINGLE else said


def _part(inner: Any, depth: int) -> Any:  # noqa: ANN401 -- any JSON
    return upgraded(inner, depth) if isinstance(inner, dict) else inner
