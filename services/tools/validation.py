"""Owns checking a tool's input against its schema, whoever wrote the one and the other.

Patterns of strangers' schemas meet text of a model's: they are matched by an engine that takes
linear time; those that look around or back, which it does not take, by one that stops after a
bounded number of steps. Python's own could take for ever.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from cachetools import LRUCache
from jsonschema_rs import Draft202012Validator, FancyRegexOptions, RegexOptions, ValidationError
from pydantic import JsonValue

from services.tools.schema_errors import explain
from services.tools.schema_work import is_too_much_work

_REMEMBERED: Final = 512
_LONGEST_CHARS: Final = 256 * 1024
# Within this size the engine takes at most a microsecond for a character; with the size that it
# allows by itself, `(?:a{1,100}){1,100}b` took 140.
_LARGEST_PATTERN: Final = 100_000
_LINEAR: Final = RegexOptions(size_limit=_LARGEST_PATTERN)
_LOOKING_AROUND: Final = FancyRegexOptions(backtrack_limit=10_000, size_limit=_LARGEST_PATTERN)


@dataclass(frozen=True, slots=True)
class SchemaValidator:
    """What checks values by one schema; `looks_around` is whether one of its patterns does."""

    schema: Mapping[str, JsonValue]
    rules: Draft202012Validator
    looks_around: bool

    def has_too_much_work_with(self, value: object) -> bool:
        """Say whether to check the value would take longer than it may: it can't be stopped."""
        return is_too_much_work(self.schema, value, looks_around=self.looks_around)


class InputValidation:
    """Checks inputs; remembers the validators of the schemas that it met last."""

    def __init__(self) -> None:
        self._validators: LRUCache[str, SchemaValidator] = LRUCache(_REMEMBERED)

    def problem(
        self, schema: Mapping[str, JsonValue], tool_input: Mapping[str, JsonValue]
    ) -> str | None:
        """Return what is wrong with the input, in words for the model, or None.

        Errors: jsonschema_rs.ValidationError for a schema that is none.
        """
        try:
            # A model can escape half a surrogate pair: valid JSON, but text that nothing stores.
            text = json.dumps(dict(tool_input), ensure_ascii=False)
            text.encode()
        except UnicodeEncodeError:
            return "it holds text that is not valid Unicode"
        if len(text) > _LONGEST_CHARS:
            return f"it is longer than {_LONGEST_CHARS:,} characters"
        validator = self._validator(schema)
        if validator.has_too_much_work_with(tool_input):
            return "it is too large, or nested too deeply, to be checked"
        if validator.rules.is_valid(tool_input):
            return None
        return explain(validator.rules.iter_errors(tool_input), schema)

    def _validator(self, schema: Mapping[str, JsonValue]) -> SchemaValidator:
        key = json.dumps(schema, sort_keys=True)
        known = self._validators.get(key)
        if known is None:
            known = self._validators[key] = validator_of(schema)
        return known


def validator_of(schema: Mapping[str, JsonValue]) -> SchemaValidator:
    """Return what checks by this schema.

    Errors: jsonschema_rs.ValidationError for a schema that is none.
    """
    try:
        return SchemaValidator(schema, _rules_of(schema, _LINEAR), looks_around=False)
    except ValidationError:
        return SchemaValidator(schema, _rules_of(schema, _LOOKING_AROUND), looks_around=True)


def _rules_of(
    schema: Mapping[str, JsonValue], patterns: FancyRegexOptions | RegexOptions
) -> Draft202012Validator:
    return Draft202012Validator(
        dict(schema), pattern_options=patterns, retriever=_fetch_nothing, validate_formats=False
    )


def _fetch_nothing(uri: str) -> NoReturn:
    """Refuse what the library would otherwise ask the network for."""
    raise LookupError(f"a schema refers to {uri[:100]}")
