"""Validation of a tool's input by its JSON schema, neither of which is trusted.

Patterns of untrusted schemas are matched with a model's text by an engine that takes linear time;
patterns with lookarounds or backreferences, which it does not support, by one that stops after a
bounded number of steps. Python's own engine might never finish.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from cachetools import LRUCache
from jsonschema_rs import Draft202012Validator, FancyRegexOptions, RegexOptions, ValidationError
from pydantic import JsonValue

from services.tools.schema_errors import SAME_NAMES, explain
from services.tools.schema_work import is_too_much_work

_CACHED: Final = 512
_LONGEST_CHARS: Final = 256 * 1024
# At this size the engine takes at most a microsecond per character; at its own default size,
# `(?:a{1,100}){1,100}b` took 140.
_LARGEST_PATTERN: Final = 100_000
_LINEAR: Final = RegexOptions(size_limit=_LARGEST_PATTERN)
_LOOKING_AROUND: Final = FancyRegexOptions(backtrack_limit=10_000, size_limit=_LARGEST_PATTERN)


@dataclass(frozen=True, slots=True)
class SchemaValidator:
    """The validator of one schema; `looks_around` is whether one of its patterns does."""

    schema: Mapping[str, JsonValue]
    rules: Draft202012Validator
    looks_around: bool

    def has_too_much_work_with(self, value: object) -> bool:
        """Return whether validating the value would take too long: it can't be interrupted."""
        return is_too_much_work(self.schema, value, looks_around=self.looks_around)


class InputValidation:
    """Validates inputs; caches the validators of the schemas used last."""

    def __init__(self) -> None:
        self._validators: LRUCache[str, SchemaValidator] = LRUCache(_CACHED)

    def problem(
        self,
        schema: Mapping[str, JsonValue],
        value: Mapping[str, JsonValue] | JsonValue,
        *,
        names: Mapping[str, str] = SAME_NAMES,
    ) -> str | None:
        """Return what is wrong with an input or an answer, for the model to read, or None.

        `names` are the reader's names of properties, where they are not the schema's.
        Errors: jsonschema_rs.ValidationError for an invalid schema.
        """
        try:
            # A model can escape half a surrogate pair: valid JSON, but text that can't be stored.
            value = dict(value) if isinstance(value, Mapping) else value
            text = json.dumps(value, ensure_ascii=False)
            text.encode()
        except UnicodeEncodeError:
            return "it contains invalid Unicode"
        if len(text) > _LONGEST_CHARS:
            return f"it is longer than {_LONGEST_CHARS:,} characters"
        validator = self._validator(schema)
        if validator.has_too_much_work_with(value):
            return "it is too large or nested too deeply"
        if validator.rules.is_valid(value):
            return None
        return explain(validator.rules.iter_errors(value), schema, names)

    def _validator(self, schema: Mapping[str, JsonValue]) -> SchemaValidator:
        key = json.dumps(schema, sort_keys=True)
        known = self._validators.get(key)
        if known is None:
            known = self._validators[key] = validator_of(schema)
        return known


def validator_of(schema: Mapping[str, JsonValue]) -> SchemaValidator:
    """Return the validator of this schema.

    Errors: jsonschema_rs.ValidationError for an invalid schema.
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
    """Refuse references that the library would otherwise fetch from the network."""
    raise LookupError(f"a schema refers to {uri[:100]}")
