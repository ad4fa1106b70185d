"""Owns checking a tool's input against its schema, whoever wrote the one and the other.

Patterns of strangers' schemas meet text of a model's: they are matched by an engine that stops
after a bounded number of steps, where Python's own could take for ever.
"""

import json
from collections.abc import Mapping
from typing import Final, NoReturn

from cachetools import LRUCache
from jsonschema_rs import Draft202012Validator, FancyRegexOptions, RegexOptions
from pydantic import JsonValue

from services.tools.schema_errors import explain

_REMEMBERED: Final = 512
_LONGEST_CHARS: Final = 256 * 1024
_PATTERNS: Final = FancyRegexOptions(backtrack_limit=100_000)


class InputValidation:
    """Checks inputs; remembers the validators of the schemas that it met last."""

    def __init__(self) -> None:
        self._validators: LRUCache[str, Draft202012Validator] = LRUCache(_REMEMBERED)

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
        if validator.is_valid(tool_input):
            return None
        return explain(validator.iter_errors(tool_input), schema)

    def _validator(self, schema: Mapping[str, JsonValue]) -> Draft202012Validator:
        key = json.dumps(schema, sort_keys=True)
        known = self._validators.get(key)
        if known is None:
            known = self._validators[key] = validator_of(schema)
        return known


def validator_of(
    schema: Mapping[str, JsonValue], *, patterns: FancyRegexOptions | RegexOptions = _PATTERNS
) -> Draft202012Validator:
    """Return what checks by this schema.

    Errors: jsonschema_rs.ValidationError for a schema that is none.
    """
    return Draft202012Validator(
        dict(schema), pattern_options=patterns, retriever=_fetch_nothing, validate_formats=False
    )


def _fetch_nothing(uri: str) -> NoReturn:
    """Refuse what the library would otherwise ask the network for."""
    raise LookupError(f"a schema refers to {uri[:100]}")
