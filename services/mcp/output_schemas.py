"""Validation of results against the output schemas that MCP servers declare for their tools.

Both are untrusted, and a hostile server can tailor one to the other. An invalid result is passed
on all the same, with a remark: the tool has taken effect by then.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import structlog
from jsonschema_rs import ValidationError
from pydantic import JsonValue

from services.mcp.errors import bounded
from services.tools.input_schemas import problem_of_form
from services.tools.schema_errors import explain
from services.tools.validation import SchemaValidator, validator_of

if TYPE_CHECKING:
    from mcp_types import CallToolResult

_log = structlog.get_logger(__name__)

_MAX_CHARS: Final = 256 * 1024
_MAX_PROBLEM: Final = 400
_MAX_CACHED: Final = 512
_MISSING: Final = (
    "(The call succeeded, but returned no structured content, although the server declares an "
    "output schema.)"
)


def problem_of_output_schema(schema: Mapping[str, JsonValue]) -> str | None:
    """Return why results can't be validated against a schema, or None.

    The text continues a sentence that begins with "the schema", and quotes nothing of it.
    """
    problem = problem_of_form(schema)
    if problem is not None:
        return problem
    try:
        validator_of(schema)
    except ValidationError:
        return "has a part that results can't be validated against"
    return None


def remark_on(
    result: "CallToolResult", schema: Mapping[str, JsonValue], *, tool: str
) -> str | None:
    """Return a sentence for the model about a result that does not match the schema, or None.

    Results that can't be validated within bounds get no remark, nor do errors of the tool.
    """
    if result.is_error:
        return None
    # The later protocol allows `null` as structured content.
    if result.structured_content is None and "structured_content" not in result.model_fields_set:
        return _MISSING
    try:
        validator = _cached_validator(json.dumps(schema))
    except ValidationError:
        # It was valid when it was stored, perhaps by another version of Everturn.
        _log.warning("mcp_output_not_validated", tool=tool, reason="schema")
        return None
    reason = _why_not_validated(validator, result.structured_content)
    if reason is not None:
        _log.info("mcp_output_not_validated", tool=tool, reason=reason)
        return None
    return _remark(validator, result.structured_content)


@lru_cache(_MAX_CACHED)
def _cached_validator(schema: str) -> SchemaValidator:
    """Return the validator of a schema, given as JSON; compiled once for all threads."""
    return validator_of(json.loads(schema))


def _remark(validator: SchemaValidator, content: object) -> str | None:
    try:
        # The first error is enough: there can be one for each of many thousand entries.
        validator.rules.validate(content)
    except ValidationError as error:
        problem = bounded(explain([error], validator.schema) or "", _MAX_PROBLEM)
        return (
            "(The call succeeded, but its structured content does not match the output schema "
            f"that the server declares: {problem}.)"
        )
    return None


def _why_not_validated(validator: SchemaValidator, content: object) -> str | None:
    try:
        text = json.dumps(content, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        return "unicode"
    except RecursionError:
        return "depth"
    if len(text) > _MAX_CHARS:
        return "size"
    return "work" if validator.has_too_much_work_with(content) else None
