"""The names of a tool's properties as a model knows them, and values renamed forth and back.

The Messages API takes only some names, so a property like `$top` or `Größe in cm` is offered
under another one. A tool has one such name for each of its own, wherever in its schema that
stands; values are renamed only where the schema names the property, so that free keys stay as
they are. A key that the schema does not name, but that equals a name given here to another
property of the same object, can't be told from it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from services.tools.schema_work import referenced_part

Part = Mapping[str, Any]
"""A part of a schema that is itself a schema, and not `true` or `false`."""

SINGLE: Final = (
    *("items", "contains", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"),
    *("propertyNames", "not", "if", "then", "else"),
)
"""Keywords that hold one schema."""

LISTED: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
REFERENCES: Final = ("$ref", "$dynamicRef")

USABLE: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
"""Source: the Messages API, which refuses a request with any other name of a property."""

_LONGEST_STEM: Final = 56
_UNUSABLE_RUN: Final = re.compile(r"[^a-zA-Z0-9_.-]+")
_WRITTEN_OUT: Final = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "Ä": "Ae",
        "Ö": "Oe",
        "Ü": "Ue",
        "ß": "ss",
        "æ": "ae",
        "Æ": "Ae",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
    }
)
_SAME_VALUE: Final = ("allOf", "anyOf", "oneOf")
_CONDITIONS: Final = ("not", "if", "then", "else")
_OF_ANY_PROPERTY: Final = ("additionalProperties", "unevaluatedProperties")
_OF_ANY_ITEM: Final = ("items", "contains", "unevaluatedItems")
_MOST_STEPS: Final = 100_000
"""A tenth of a second, which nothing can interrupt."""


def reachable_parts(schema: Part) -> list[Part]:
    """Return all parts of a schema that can apply to a value, each once, the schema first."""
    found: dict[int, Part] = {}
    waiting: list[object] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and id(part) not in found:
            found[id(part)] = part
            waiting.extend(_parts_in(part))
            waiting.extend(targets(schema, part))
    return list(found.values())


def targets(schema: Part, part: Part) -> Iterator[object]:
    """Yield the parts that a part refers to; nothing for a reference that leads nowhere."""
    for keyword in REFERENCES:
        reference = part.get(keyword)
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            try:
                yield referenced_part(schema, reference)
            except LookupError:
                continue


def declared_names(part: Part) -> set[str]:
    """Return the names of properties that a part itself mentions."""
    names = set(mapping_at(part, "properties")) | set(mapping_at(part, "dependentSchemas"))
    names |= {name for name in list_at(part, "required") if isinstance(name, str)}
    needed = mapping_at(part, "dependentRequired")
    names |= {*needed, *(entry for name in needed for entry in list_at(needed, name))}
    return names


def names_for_model(parts: Iterable[Part]) -> dict[str, str]:
    """Return the names that a model gets for those properties whose own can't be offered."""
    declared = set[str]().union(*map(declared_names, parts))
    taken = {name for name in declared if USABLE.fullmatch(name)}
    given: dict[str, str] = {}
    # In their order, so that the same schema always gets the same names, however it was stored.
    for name in sorted(declared - taken):
        given[name] = _free_name(name, taken)
        taken.add(given[name])
    return given


def _free_name(name: str, taken: set[str]) -> str:
    plain = unicodedata.normalize("NFKD", name.translate(_WRITTEN_OUT))
    plain = plain.encode("ascii", "ignore").decode()
    stem = _UNUSABLE_RUN.sub("_", plain).strip("_.-")[:_LONGEST_STEM]
    if stem and stem not in taken:
        return stem
    stem, number = stem or "property", 2 if stem else 1
    while f"{stem}_{number}" in taken:
        number += 1
    return f"{stem}_{number}"


class _Place(NamedTuple):
    """A value in its container, and the parts that apply to it."""

    container: Any
    key: Any
    parts: tuple[Part, ...]


class PropertyNames:
    """Renames the properties of a tool's input; `to_model` holds the names that differ."""

    def __init__(self, schema: Part, to_model: Mapping[str, str]) -> None:
        self.to_model = to_model
        self._to_tool = {given: name for name, given in to_model.items()}
        self._schema = schema
        # Parts are told apart by identity; the schema keeps them alive.
        self._all_of: dict[int, tuple[Part, ...]] = {}
        self._declared: dict[int, set[str]] = {}

    def for_tool(self, value: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return an input of a model in the tool's own names; None for one that is too large."""
        return self._renamed(value, self._to_tool, own=lambda name: self._to_tool.get(name, name))

    def for_model(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return an input in the names that the model knows; one that is too large, as it is."""
        return self._renamed(value, self.to_model, own=lambda name: name) or dict(value)

    def _renamed(
        self, value: Mapping[str, Any], names: Mapping[str, str], *, own: Callable[[str], str]
    ) -> dict[str, Any] | None:
        """Return a copy with other names; None for a value that takes too long."""
        if not names:
            return dict(value)
        root: dict[str, Any] = {"": value}
        waiting = [_Place(root, "", self._applicable([self._schema]))]
        steps = 0
        while waiting:
            place = waiting.pop()
            entry = place.container[place.key]
            if not isinstance(entry, dict | list):
                continue
            steps += (len(entry) + 1) * (len(place.parts) + 1)
            if steps > _MOST_STEPS:
                return None
            if isinstance(entry, list):
                place.container[place.key] = copied = list(entry)
                # All behind the first few have the same parts: these are found once.
                first = max(len(list_at(part, "prefixItems")) for part in place.parts or ({},))
                below = [self._of_item(place.parts, index) for index in range(first + 1)]
                steps += sum(map(len, below))
                waiting += (
                    _Place(copied, index, below[min(index, first)]) for index in range(len(copied))
                )
                continue
            named = set[str]().union(*map(self._names_in, place.parts))
            place.container[place.key] = renamed = dict[str, Any]()
            for name, inner in entry.items():
                original = own(name) if own(name) in named else name
                given = names.get(name, name) if original in named else name
                renamed[given] = inner
                waiting.append(_Place(renamed, given, self._of_property(place.parts, original)))
        return dict(root[""])

    def _names_in(self, part: Part) -> set[str]:
        if id(part) not in self._declared:
            self._declared[id(part)] = declared_names(part)
        return self._declared[id(part)]

    def _of_property(self, parts: Iterable[Part], name: str) -> tuple[Part, ...]:
        below: list[object] = []
        for part in parts:
            below += [mapping_at(part, "properties").get(name)]
            below += mapping_at(part, "patternProperties").values()
            below += [part.get(keyword) for keyword in _OF_ANY_PROPERTY]
        return self._applicable(below)

    def _of_item(self, parts: Iterable[Part], index: int) -> tuple[Part, ...]:
        below: list[object] = []
        for part in parts:
            below += list_at(part, "prefixItems")[index : index + 1]
            below += [part.get(keyword) for keyword in _OF_ANY_ITEM]
        return self._applicable(below)

    def _applicable(self, parts: Iterable[object]) -> tuple[Part, ...]:
        """Return the parts, and those that they apply to the same value."""
        found: dict[int, Part] = {}
        for part in parts:
            if isinstance(part, dict) and id(part) not in found:
                found.update((id(inner), inner) for inner in self._with_inner(part))
        return tuple(found.values())

    def _with_inner(self, part: Part) -> tuple[Part, ...]:
        known = self._all_of.get(id(part))
        if known is not None:
            return known
        found: dict[int, Part] = {}
        waiting: list[object] = [part]
        while waiting:
            inner = waiting.pop()
            if isinstance(inner, dict) and id(inner) not in found:
                found[id(inner)] = inner
                for keyword in _SAME_VALUE:
                    waiting.extend(list_at(inner, keyword))
                waiting.extend(inner.get(keyword) for keyword in _CONDITIONS)
                waiting.extend(mapping_at(inner, "dependentSchemas").values())
                waiting.extend(targets(self._schema, inner))
        self._all_of[id(part)] = tuple(found.values())
        return self._all_of[id(part)]


def _parts_in(part: Part) -> Iterator[object]:
    for keyword in SINGLE:
        yield part.get(keyword)
    for keyword in LISTED:
        yield from list_at(part, keyword)
    for keyword in NAMED:
        yield from mapping_at(part, keyword).values()


def mapping_at(part: Part, keyword: str) -> Mapping[str, Any]:
    """Return an object in a part; empty for anything else, to which a reference may have led."""
    said = part.get(keyword)
    return said if isinstance(said, dict) else {}


def list_at(part: Part, keyword: str) -> list[Any]:
    """Return a list in a part; empty for anything else."""
    said = part.get(keyword)
    return said if isinstance(said, list) else []
