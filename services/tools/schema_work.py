"""Estimates how much work it is to validate a value by a schema, without validating it.

The validator can't be interrupted, and a few lines of schema can keep it busy indefinitely, e.g. a
chain of parts of which each refers to the next one twice. So its path is walked first, up to a
number of steps; a value that needs more is not validated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

MOST_STEPS: Final = 200_000
"""Takes less than half a second to walk, and no longer to validate."""

_DEEPEST: Final = 500
"""The nesting of parts that the stack can hold: a thread's may be half a MiB."""
_LONGEST_INDEX: Final = 9
_CHARS_PER_STEP: Final = 4
_STEPS_PER_CHAR_LOOKING_AROUND: Final = 16
"""A pattern that looks around or back may read the rest of the text at each of its steps."""
_ENTRIES_PER_STEP: Final = 16
_STEPS_OF_DIVISION: Final = 16
"""Division is exact, of fractions: 20 microseconds for a large number."""

_LISTED: Final = ("allOf", "anyOf", "oneOf")
_NAMED: Final = ("dependentSchemas", "dependencies")
_CONDITIONS: Final = ("not", "if", "then", "else")
_REFERENCES: Final = ("$ref", "$dynamicRef")
_OF_THE_REST: Final = ("unevaluatedItems", "unevaluatedProperties")
_OF_ITEMS: Final = ("items", "contains", "unevaluatedItems")
_OF_PROPERTIES: Final = ("additionalProperties", "unevaluatedProperties")

_Part = Mapping[str, Any]


def is_too_much_work(
    schema: Mapping[str, Any],
    value: object,
    *,
    most_steps: int = MOST_STEPS,
    looks_around: bool = False,
) -> bool:
    """Return whether validating the value would take too long, or never end.

    `looks_around` is whether a pattern of the schema looks around or back.
    """
    steps_per_char = _STEPS_PER_CHAR_LOOKING_AROUND if looks_around else 1 / _CHARS_PER_STEP
    parts = _Map(schema)
    taken = 0
    waiting = [_Step(schema, value, 0, looks_again=False)]
    while waiting:
        step = waiting.pop()
        taken += parts.stop_at(step.part).work_on(step.value, steps_per_char)
        if taken > most_steps or step.depth > _DEEPEST:
            return True
        for part, met, looks_again in parts.after(step):
            taken += 1
            if taken > most_steps:
                return True
            if isinstance(part, dict):
                waiting.append(_Step(part, met, step.depth + 1, looks_again))
    return False


class _Step(NamedTuple):
    """A part of the schema, applied to a part of the value.

    `looks_again` is whether an enclosing part asks which entries were evaluated, for each entry.
    """

    part: _Part
    value: object
    depth: int
    looks_again: bool


@dataclass(frozen=True, slots=True)
class _Stop:
    """The work of one part: other parts for the same value, and its own checks."""

    same: tuple[object, ...]
    asks_for_the_rest: bool
    entries: int
    patterns: int
    has_pattern: bool
    divides: bool

    def work_on(self, value: object, steps_per_char: float) -> int:
        """Return the part's own cost: reading lists, matching patterns."""
        division = _STEPS_OF_DIVISION if self.divides and isinstance(value, int | float) else 0
        chars = len(value) if self.has_pattern and isinstance(value, str) else 0
        if self.patterns and isinstance(value, dict):
            chars += self.patterns * sum(_CHARS_PER_STEP + len(name) for name in value)
        entries = self.entries + (len(value) if isinstance(value, list | dict) else 0)
        return division + entries // _ENTRIES_PER_STEP + int(chars * steps_per_char)


class _Map:
    """The parts of a schema, each analysed once, since most are visited many times."""

    def __init__(self, schema: _Part) -> None:
        self._schema = schema
        self._stops: dict[int, _Stop] = {}

    def stop_at(self, part: _Part) -> _Stop:
        stop = self._stops.get(id(part))
        if stop is None:
            stop = self._stops[id(part)] = self._look_at(part)
        return stop

    def after(self, step: _Step) -> Iterator[tuple[object, object, bool]]:
        stop, value = self.stop_at(step.part), step.value
        looks_again = step.looks_again or stop.asks_for_the_rest
        times = 1 + len(value) if looks_again and isinstance(value, list | dict) else 1
        for part in stop.same:
            for _ in range(times):
                yield part, value, looks_again
        for inner, entry in _of_entries(step.part, value):
            yield inner, entry, False

    def _look_at(self, part: _Part) -> _Stop:
        patterns = part.get("patternProperties")
        return _Stop(
            same=tuple(self._of_the_same_value(part)),
            asks_for_the_rest=any(keyword in part for keyword in _OF_THE_REST),
            entries=sum(len(said) for said in part.values() if isinstance(said, list | dict)),
            patterns=len(patterns) if isinstance(patterns, dict) else 0,
            has_pattern="pattern" in part,
            divides="multipleOf" in part,
        )

    def _of_the_same_value(self, part: _Part) -> Iterator[object]:
        for keyword in _REFERENCES:
            if isinstance(part.get(keyword), str):
                yield self._target(part[keyword])
        for keyword in _LISTED:
            if isinstance(part.get(keyword), list):
                yield from part[keyword]
        for keyword in _NAMED:
            if isinstance(part.get(keyword), dict):
                yield from part[keyword].values()
        yield from (part[keyword] for keyword in _CONDITIONS if keyword in part)

    def _target(self, reference: str) -> object:
        try:
            return referenced_part(self._schema, reference)
        except LookupError:
            # The validator reports it.
            return None


def referenced_part(schema: Mapping[str, Any], reference: str) -> object:
    """Return the part of a schema that a JSON pointer leads to (`#/$defs/a`, or `#` for all of it).

    Errors: LookupError for a part that does not exist.
    """
    part: Any = schema
    for step in unquote(reference).removeprefix("#").split("/")[1:]:
        if isinstance(part, list) and step.isdecimal() and len(step) <= _LONGEST_INDEX:
            part = part[int(step)]
        elif isinstance(part, dict):
            part = part[step.replace("~1", "/").replace("~0", "~")]
        else:
            raise LookupError(reference)
    return part


def _of_entries(part: _Part, value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, list):
        first = part.get("prefixItems")
        if isinstance(first, list):
            yield from zip(first, value, strict=False)
        for keyword in _OF_ITEMS:
            if keyword in part:
                yield from ((part[keyword], item) for item in value)
    elif isinstance(value, dict):
        yield from _of_properties(part, value)


def _of_properties(part: _Part, value: Mapping[str, object]) -> Iterator[tuple[object, object]]:
    named, patterns = part.get("properties"), part.get("patternProperties")
    if isinstance(named, dict):
        yield from ((named[name], entry) for name, entry in value.items() if name in named)
    if isinstance(patterns, dict):
        yield from ((inner, entry) for inner in patterns.values() for entry in value.values())
    for keyword in _OF_PROPERTIES:
        if keyword in part:
            yield from ((part[keyword], entry) for entry in value.values())
    if "propertyNames" in part:
        yield from ((part["propertyNames"], name) for name in value)
