"""The schema of a tool's input as it is offered to a model: one that providers take.

The Messages API refuses a whole request, with all its tools, for one schema that it doesn't take.
So the root is folded into a plain object, properties get names that it takes, and what providers
are known to refuse is left out. An offered schema only guides the model: it takes all that the
tool's own schema takes, and usually more. An input is checked by the tool's own.
Source: the errors of the Messages API, e.g. "input_schema does not support oneOf, allOf, or anyOf
at the top level" and "Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'"; compatible
gateways also refuse `enum` and `not` there, objects without `properties`, and patterns that only
ECMA-262 knows.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from schema.contexts import OfferedTool
from services.tools.property_names import (
    LISTED,
    NAMED,
    REFERENCES,
    SINGLE,
    USABLE,
    Part,
    PropertyNames,
    list_at,
    mapping_at,
    names_for_model,
    reachable_parts,
)
from services.tools.schema_errors import shortened
from services.tools.schema_folding import CannotFoldError, Folding
from services.tools.schema_work import referenced_part

if TYPE_CHECKING:
    # At run time it would import the whole SDK.
    from anthropic.types import ToolParam

_CACHED: Final = 1_024
_LONGEST_CHARS: Final = 128 * 1024
"""Twice what the tool's own schema may have."""

_LEAVE_OUT: Final = (None, None)
_BEGINNINGS: Final = {"anyOf": "At least one of these", "oneOf": "Exactly one of these"}
_LONGEST_NOTE: Final = 2_000
_NOT_AT_ROOT: Final = frozenset(
    (
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "enum",
        "const",
        "dependentSchemas",
        *REFERENCES,
    )
)
_LEFT_OUT: Final = frozenset(
    ("$schema", "$id", "$anchor", "$dynamicAnchor", "$recursiveRef", "$vocabulary", "$comment")
)
# What limits inputs and is left out, so that a part without it takes more.
_LOOSENED: Final = frozenset(
    ("patternProperties", "unevaluatedProperties", "unevaluatedItems", "dependencies")
)
# Beside a part that takes more than it did, these would take less.
_CONTRARY: Final = frozenset(("not", "if", "then", "else", "maxContains"))
_VALUES: Final = ("enum", "const", "default", "examples")
_PLAIN_REFERENCE: Final = re.compile(r"#(/(?:\$defs|definitions)/[a-zA-Z0-9_.-]{1,64})?")
# Engines differ in anything beyond groups, classes and repetitions.
_SPECIAL_PATTERN: Final = re.compile(
    r"\\[^dDwWsSbBnrtfv\W]|\(\?(?!:)|\[\[|&&|--|~~|\|\||[^\x00-\x7f]"
)


@dataclass(frozen=True, slots=True)
class OfferedSchema:
    """What a model is offered of a tool's input, and the names of properties there."""

    schema: dict[str, Any]
    names: PropertyNames


def offered_schema(schema: Mapping[str, Any]) -> OfferedSchema:
    """Return the schema to offer for a tool with this schema; the same for the same schema.

    Errors: CannotFoldError for a schema that can't be offered.
    """
    return _offered(json.dumps(schema))


def problem_of_offer(schema: Mapping[str, Any]) -> str | None:
    """Return why a valid schema can't be offered, or None; continues after "the schema"."""
    try:
        offered_schema(schema)
    except CannotFoldError as error:
        return str(error)
    return None


def tool_params(tools: "Iterable[OfferedTool]") -> "list[ToolParam]":
    """Return tools as they are sent to the provider; one that can't be offered is left out."""
    params: list[ToolParam] = []
    for tool in tools:
        try:
            schema = offered_schema(tool.input_schema).schema
        except CannotFoldError:
            # Accepted by an earlier release; the next refresh of its server says so.
            continue
        params.append({"name": tool.name, "input_schema": schema})
        # Some gateways refuse an empty one.
        if tool.description.strip():
            params[-1]["description"] = tool.description
    return params


def names_of_input(schema: Mapping[str, Any]) -> PropertyNames:
    """Return the names of a tool's properties as the model knows them."""
    try:
        return offered_schema(schema).names
    except CannotFoldError:
        # It was never offered.
        return PropertyNames({}, {})


@lru_cache(_CACHED)
def _offered(schema: str) -> OfferedSchema:
    return _Rewriting(json.loads(schema)).offer()


@dataclass(slots=True)
class _Rewriting:
    """Rewrites one schema."""

    schema: dict[str, Any]
    names: dict[str, str] = field(init=False)
    is_loosened: bool = field(init=False)
    _moved: dict[str, str] = field(default_factory=dict)
    _parts: list[Part] = field(init=False)

    def __post_init__(self) -> None:
        self._parts = reachable_parts(self.schema)
        self.names = names_for_model(self._parts)
        # A reference to the root leads to the folded one.
        self.is_loosened = any(map(self._loosens, self._parts)) or (
            bool(_NOT_AT_ROOT & self.schema.keys())
            and any(part.get(keyword) == "#" for part in self._parts for keyword in REFERENCES)
        )

    def offer(self) -> OfferedSchema:
        """Return the schema to offer."""
        names = PropertyNames(self.schema, self.names)
        if self._is_fine_as_it_is():
            return OfferedSchema(dict(self.schema), names)
        root = {
            keyword: said for keyword, said in self.schema.items() if keyword not in _NOT_AT_ROOT
        }
        offered = self._rewritten(root)
        offered["type"] = "object"
        offered.setdefault("properties", {})
        if _NOT_AT_ROOT & self.schema.keys():
            self._fold(offered)
        self._add_moved(offered)
        if len(json.dumps(offered, ensure_ascii=False)) > _LONGEST_CHARS:
            raise CannotFoldError(f"is longer than {_LONGEST_CHARS:,} characters once folded")
        return OfferedSchema(offered, names)

    def _is_fine_as_it_is(self) -> bool:
        return (
            self.schema.get("type") == "object"
            and "properties" in self.schema
            and not _NOT_AT_ROOT & self.schema.keys()
            and not self.names
            and not self.is_loosened
            and not any(map(self._is_to_rewrite, self._parts))
        )

    def _is_to_rewrite(self, part: Part) -> bool:
        return (
            bool(_LEFT_OUT & part.keys())
            or any(isinstance(part.get(name), str) and not _is_plain(part) for name in REFERENCES)
            or any(isinstance(inner, bool) for inner in mapping_at(part, "properties").values())
            or any(
                not USABLE.fullmatch(name)
                for keyword in ("$defs", "definitions")
                for name in mapping_at(part, keyword)
            )
        )

    def _loosens(self, part: Part) -> bool:
        """Return whether the part will take more than it did, whatever else it says."""
        return (
            bool(_LOOSENED & part.keys())
            or _has_special_pattern(part)
            or (bool(self.names) and ("propertyNames" in part or _has_container(part, "enum")))
            or (bool(self.names) and _has_container(part, "const"))
        )

    def _fold(self, offered: dict[str, Any]) -> None:
        folding = Folding(self.schema)
        folded = folding.fold()
        offered["properties"] = {
            self.names.get(name, name): self._of_property(name, part)
            for name, part in folded.properties.items()
            if part is not False
        }
        if folded.required:
            offered["required"] = [self.names.get(name, name) for name in folded.required]
        if folded.is_closed:
            offered["additionalProperties"] = False
        else:
            offered.pop("additionalProperties", None)
        notes = (self._note_of(keyword, parts) for keyword, parts in folding.remarks())
        _describe(offered, _cut(" ".join(filter(None, notes))), after=True)

    def _note_of(self, keyword: str, parts: Sequence[Any]) -> str:
        if keyword == "enum":
            return f"One of {_as_json(parts)}."
        words = [self._words_of(part) for part in parts]
        if keyword in _BEGINNINGS and all(words):
            listed = "; ".join(f"({number}) {word}" for number, word in enumerate(words, 1))
            return f"{_BEGINNINGS[keyword]} must hold: {listed}."
        said = {keyword: [self._quoted(part) for part in parts]}
        return "" if said == {"allOf": [{}]} else f"Also applies: {_as_json(said)}."

    def _quoted(self, branch: object) -> object:
        return self._rewritten(branch) if isinstance(branch, dict) else branch

    def _words_of(self, branch: object) -> str:
        """Return what a branch asks for in words, or an empty text where words don't suffice."""
        if not isinstance(branch, dict):
            return ""
        words = [shortened(branch[key]) for key in ("title",) if isinstance(branch.get(key), str)]
        fixed = {
            name: part["const"]
            for name, part in mapping_at(branch, "properties").items()
            if isinstance(part, dict) and "const" in part
        }
        words += [f"`{self.names.get(name, name)}` is {_as_json(fixed[name])}" for name in fixed]
        given = [name for name in list_at(branch, "required") if name not in fixed]
        if given:
            words.append(", ".join(f"`{self.names.get(name, name)}`" for name in given) + " given")
        return " and ".join(words)

    def _rewritten(self, part: Part) -> dict[str, Any]:
        """Return a part as it is offered, in the names for the model."""
        offered: dict[str, Any] = {}
        for keyword, said in part.items():
            if keyword in _LEFT_OUT or keyword in _LOOSENED:
                continue
            if keyword in _CONTRARY and self.is_loosened:
                continue
            kept, rewritten = self._keyword(keyword, said, part)
            if kept is not None:
                offered[kept] = rewritten
        if self.is_loosened and "oneOf" in offered:
            alternatives = {"anyOf": offered.pop("oneOf")}
            if "anyOf" not in offered:
                offered.update(alternatives)
            else:
                offered["allOf"] = [*offered.get("allOf", ()), alternatives]
        if _has_special_pattern(part) and isinstance(part.get("pattern"), str):
            _describe(offered, f"Pattern: {shortened(part['pattern'])}", after=True)
        return offered

    def _keyword(self, keyword: str, said: Any, part: Part) -> tuple[str | None, Any]:  # noqa: ANN401 -- any JSON
        rewrite = self._rewriters().get(keyword)
        if rewrite is not None:
            return rewrite(said, part)
        if keyword in LISTED and isinstance(said, list):
            return keyword, [self._quoted(inner) for inner in said]
        if keyword in SINGLE:
            return keyword, self._quoted(said)
        if keyword in NAMED and isinstance(said, dict):
            kept = {name: self._quoted(inner) for name, inner in said.items()}
            return keyword, {name: kept[name] for name in kept if USABLE.fullmatch(name)}
        if keyword in _VALUES:
            return _LEAVE_OUT if self.names and _has_container(part, keyword) else (keyword, said)
        # Of an unknown keyword: nothing that limits an input, but perhaps looks as if it did.
        return _LEAVE_OUT if _has_inner_container(said) else (keyword, said)

    def _rewriters(self) -> Mapping[str, Callable[[Any, Part], tuple[str | None, Any]]]:
        return {
            "properties": lambda _, part: (
                "properties",
                self._properties(mapping_at(part, "properties")),
            ),
            "required": lambda _, part: ("required", self._listed(list_at(part, "required"))),
            "dependentRequired": lambda _, part: (
                "dependentRequired",
                {
                    self.names.get(name, name): self._listed(needed)
                    for name, needed in mapping_at(part, "dependentRequired").items()
                },
            ),
            "dependentSchemas": lambda _, part: (
                "dependentSchemas",
                {
                    self.names.get(name, name): self._quoted(inner)
                    for name, inner in mapping_at(part, "dependentSchemas").items()
                },
            ),
            "pattern": lambda said, part: (
                _LEAVE_OUT if _has_special_pattern(part) else ("pattern", said)
            ),
            "propertyNames": lambda said, _: (
                _LEAVE_OUT if self.names else ("propertyNames", self._quoted(said))
            ),
            "additionalProperties": lambda said, part: (
                _LEAVE_OUT
                if "patternProperties" in part
                else ("additionalProperties", self._quoted(said))
            ),
            "$ref": lambda said, _: ("$ref", self._reference(said)),
            "$dynamicRef": lambda said, _: ("$ref", self._reference(said)),
        }

    def _properties(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {
            self.names.get(name, name): self._of_property(name, part)
            for name, part in properties.items()
            if part is not False
        }

    def _of_property(self, name: str, part: object) -> dict[str, Any]:
        offered = self._rewritten(part) if isinstance(part, dict) else {}
        if name in self.names:
            _describe(offered, f"Named `{shortened(name)}` by the tool.", after=False)
        return offered

    def _listed(self, names: Iterable[str]) -> list[str]:
        return [self.names.get(name, name) for name in names]

    def _reference(self, reference: Any) -> Any:  # noqa: ANN401 -- as it stands there
        """Return a reference that leads to the same part in the offered schema."""
        if not isinstance(reference, str) or _PLAIN_REFERENCE.fullmatch(reference):
            return reference
        if reference not in self._moved:
            taken = {*mapping_at(self.schema, "$defs"), *self._moved.values()}
            number = len(self._moved) + 1
            while f"part_{number}" in taken:
                number += 1
            self._moved[reference] = f"part_{number}"
        return f"#/$defs/{self._moved[reference]}"

    def _add_moved(self, offered: dict[str, Any]) -> None:
        """Add the parts that references lead to, which may refer to more of them."""
        done: dict[str, Any] = {}
        while len(done) < len(self._moved):
            reference = next(it for it in self._moved if self._moved[it] not in done)
            target = referenced_part(self.schema, reference)
            done[self._moved[reference]] = self._quoted(target)
        if done:
            offered["$defs"] = {**offered.get("$defs", {}), **done}


def _is_plain(part: Part) -> bool:
    return "$dynamicRef" not in part and bool(
        _PLAIN_REFERENCE.fullmatch(str(part.get("$ref", "#")))
    )


def _has_special_pattern(part: Part) -> bool:
    pattern = part.get("pattern")
    return isinstance(pattern, str) and bool(_SPECIAL_PATTERN.search(pattern))


def _has_container(part: Part, keyword: str) -> bool:
    """Return whether a value that the part names has properties, which may have other names."""
    said = part.get(keyword)
    values = said if keyword in {"enum", "examples"} and isinstance(said, list) else [said]
    return any(isinstance(value, dict | list) for value in values)


def _has_inner_container(said: object) -> bool:
    entries = said if isinstance(said, list) else [said]
    return any(isinstance(entry, dict | list) for entry in entries)


def _describe(part: dict[str, Any], words: str, *, after: bool) -> None:
    said = part.get("description")
    texts = [said, words] if after else [words, said]
    joined = " ".join(text for text in texts if isinstance(text, str) and text)
    if joined:
        part["description"] = joined


def _as_json(value: object) -> str:
    return _cut(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _cut(note: str) -> str:
    return note if len(note) <= _LONGEST_NOTE else f"{note[:_LONGEST_NOTE]}…"
