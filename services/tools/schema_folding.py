"""The root of a tool's schema as one plain object: which properties it can have, which it must.

Alternatives are joined: a property may be what any of them says, and is required where all of
them require it. The result takes all that the schema takes, but for a property that only some
alternatives describe: it is offered as they do.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.tools.property_names import REFERENCES, Part, list_at, mapping_at
from services.tools.schema_work import referenced_part

_MOST_PARTS: Final = 2_000
_ONE_OF_THEM: Final = ("anyOf", "oneOf")
_TOLD_AS_SCHEMA: Final = ("if", "then", "else", "not", "dependentSchemas")
_TOLD_IN_WORDS: Final = (*_ONE_OF_THEM, "enum")


class CannotFoldError(Exception):
    """A schema can't be offered; the text continues a sentence that begins with "the schema"."""


@dataclass(frozen=True, slots=True)
class Folded:
    """The properties of an object, by name, and the names of those that it must have.

    `partly` are the properties that an alternative leaves open, where others describe them.
    """

    properties: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    is_closed: bool = False
    partly: frozenset[str] = frozenset()


class Folding:
    """Folds the root of one schema."""

    def __init__(self, schema: Part) -> None:
        self._schema = schema
        self._seen = 0

    def fold(self) -> Folded:
        """Return the schema as one object.

        Errors: CannotFoldError for too many alternatives.
        """
        return self._fold(self._schema) or Folded()

    def remarks(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield what the root asks for beside its properties: a keyword and its parts.

        What can't be told in words comes as a schema, under `allOf`.
        """
        waiting: list[object] = [self._schema]
        for count, part in enumerate(waiting):
            if count > _MOST_PARTS:
                return
            if not isinstance(part, dict):
                continue
            for keyword in _TOLD_IN_WORDS:
                if isinstance(part.get(keyword), list):
                    yield keyword, part[keyword]
            if "const" in part:
                yield "enum", [part["const"]]
            rest = {keyword: part[keyword] for keyword in _TOLD_AS_SCHEMA if keyword in part}
            if rest:
                yield "allOf", [rest]
            waiting += [*self._targets(part), *list_at(part, "allOf")]

    def _fold(self, part: object) -> Folded | None:
        """Return a part as one object; None for one that nothing satisfies."""
        self._seen += 1
        if self._seen > _MOST_PARTS:
            raise CannotFoldError("has too many alternatives to be offered to a model")
        if not isinstance(part, dict):
            return None if part is False else Folded()
        folded = Folded(
            mapping_at(part, "properties"),
            tuple(list_at(part, "required")),
            is_closed=part.get("additionalProperties") is False and "patternProperties" not in part,
        )
        for piece in self._pieces(part):
            if piece is None:
                return None
            folded = _both(folded, piece)
        return folded

    def _pieces(self, part: Part) -> Iterator[Folded | None]:
        """Yield what applies to the same object."""
        for target in self._targets(part):
            yield self._fold(target)
        for inner in list_at(part, "allOf"):
            yield self._fold(inner)
        for keyword in _ONE_OF_THEM:
            if list_at(part, keyword):
                yield self._any_of(part[keyword])
        if "if" in part:
            yield self._any_of([part.get("then", True), part.get("else", True)])
        for inner in mapping_at(part, "dependentSchemas").values():
            yield self._any_of([inner, True])

    def _targets(self, part: Part) -> Iterator[object]:
        for keyword in REFERENCES:
            if isinstance(part.get(keyword), str):
                yield referenced_part(self._schema, part[keyword])

    def _any_of(self, parts: Iterable[object]) -> Folded | None:
        possible = [folded for folded in map(self._fold, parts) if folded is not None]
        if not possible:
            return None
        names = dict.fromkeys(name for folded in possible for name in folded.properties)
        open_in_some = {
            name
            for name in names
            for folded in possible
            if name in folded.partly or (name not in folded.properties and not folded.is_closed)
        }
        return Folded(
            {
                name: _joined(
                    "anyOf", [it.properties[name] for it in possible if name in it.properties]
                )
                for name in names
            },
            tuple(
                name
                for name in possible[0].required
                if all(name in folded.required for folded in possible)
            ),
            is_closed=all(folded.is_closed for folded in possible),
            partly=frozenset(open_in_some),
        )


def _both(one: Folded, other: Folded) -> Folded:
    """Return an object that satisfies both."""
    properties: dict[str, Any] = {}
    for name in dict.fromkeys([*one.properties, *other.properties]):
        said = [folded for folded in (one, other) if name in folded.properties]
        if len(said) == 1 and (other if said[0] is one else one).is_closed:
            continue
        # What applies to some alternatives only must not narrow what applies to all.
        whole = [folded for folded in said if name not in folded.partly]
        keyword = "allOf" if whole else "anyOf"
        properties[name] = _joined(keyword, [it.properties[name] for it in whole or said])
    partly = {
        name
        for name in properties
        if all(name in it.partly for it in (one, other) if name in it.properties)
    }
    return Folded(
        properties,
        tuple(dict.fromkeys([*one.required, *other.required])),
        is_closed=one.is_closed or other.is_closed,
        partly=frozenset(partly),
    )


def _joined(keyword: str, parts: list[Any]) -> Any:  # noqa: ANN401 -- a schema, or true or false
    distinct: list[Any] = []
    for part in parts:
        if part not in distinct:
            distinct.append(part)
    if keyword == "anyOf" and any(part is True or part == {} for part in distinct):
        return {}
    if keyword == "allOf" and False in distinct:
        return False
    telling = [part for part in distinct if part is not True and part != {}]
    return {keyword: telling} if len(telling) > 1 else (telling or [True])[0]
