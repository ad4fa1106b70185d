"""Owns whether results follow the output schemas that MCP servers declare for their tools.

Both are a stranger's, and made for each other if they are hostile. A result that does not follow
is data all the same: when it is looked at, the tool has had its effect.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog
from jsonschema_rs import ValidationError
from pydantic import JsonValue

from services.mcp.words import bounded
from services.tools.input_schemas import problem_of_form
from services.tools.schema_errors import explain
from services.tools.validation import SchemaValidator, validator_of

if TYPE_CHECKING:
    from mcp_types import CallToolResult

_log = structlog.get_logger(__name__)

_LONGEST_CHARS: Final = 256 * 1024
_LONGEST_PROBLEM: Final = 400
_MISSING: Final = (
    "(The call is done, but it returned no structured content, "
    "for which the server declares an output schema.)"
)


def problem_of_output_schema(schema: Mapping[str, JsonValue]) -> str | None:
    """Say why results can't be checked by a schema, or None where they can.

    What is returned goes on after the words "the schema", and quotes nothing of it.
    """
    problem = problem_of_form(schema)
    if problem is not None:
        return problem
    try:
        validator_of(schema)
    except ValidationError:
        return "has a part that results can't be checked by"
    return None


def remark_on(
    result: "CallToolResult", schema: Mapping[str, JsonValue], *, tool: str
) -> str | None:
    """Return a sentence for the model about a result that breaks its server's promise, or None.

    What can't be checked within bounds is not remarked on. Errors of tools promise nothing.
    """
    if result.is_error:
        return None
    # A later version of the protocol lets `null` be what was promised.
    if result.structured_content is None and "structured_content" not in result.model_fields_set:
        return _MISSING
    try:
        validator = validator_of(schema)
    except ValidationError:
        # It was in order when it was listed: another version of ours may have done that.
        _log.warning("mcp_output_not_checked", tool=tool, reason="schema")
        return None
    unchecked = _why_unchecked(validator, result.structured_content)
    if unchecked is not None:
        _log.info("mcp_output_not_checked", tool=tool, reason=unchecked)
        return None
    return _remark(validator, result.structured_content)


def _remark(validator: SchemaValidator, content: object) -> str | None:
    try:
        # The first error is enough: there can be one for each of many thousand entries.
        validator.rules.validate(content)
    except ValidationError as error:
        problem = bounded(explain([error], validator.schema) or "", _LONGEST_PROBLEM)
        return (
            "(The call is done, but its structured content does not follow the output schema "
            f"that the server declares: {problem}.)"
        )
    return None


def _why_unchecked(validator: SchemaValidator, content: object) -> str | None:
    try:
        text = json.dumps(content, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        return "unicode"
    except RecursionError:
        return "depth"
    if len(text) > _LONGEST_CHARS:
        return "size"
    return "work" if validator.has_too_much_work_with(content) else None
