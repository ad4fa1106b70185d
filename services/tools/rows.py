"""Owns turning rows of tools into what is run, and rows of trials into what administrators see."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pydantic import JsonValue

from schema.tables import McpToolRow, ToolSettingsRow, ToolTestRow, WorkflowToolRow
from schema.tools import ApprovalPolicy, RetryClass, ToolDefinition, ToolKind, ToolTest
from schema.users import UserRole
from services.tools.permission import ToolSetting
from services.tools.schema_for_model import qualified_name

_MCP_TIMEOUT: Final = timedelta(seconds=60)
"""How long a call of an MCP server's tool may take, unless an administrator says otherwise."""


def tool_test_from_row(row: ToolTestRow) -> ToolTest | None:
    """Return what came of the trial that the row holds, or None while nothing has."""
    if row.output is None:
        return None
    return ToolTest(
        output=row.output, is_error=bool(row.is_error), duration_ms=row.duration_ms or 0
    )


def setting_from_row(row: ToolSettingsRow) -> ToolSetting:
    """Return the decision that the row holds."""
    return ToolSetting(
        enabled=row.enabled,
        approval=None if row.approval is None else ApprovalPolicy(row.approval),
        roles=None if row.roles is None else frozenset(map(UserRole, row.roles)),
        retry_class=None if row.retry_class is None else RetryClass(row.retry_class),
        timeout_s=row.timeout_s,
        cost_usd=row.cost_usd,
    )


def mcp_definition_from_row(row: McpToolRow) -> ToolDefinition:
    """Return a tool of an MCP server as it is run."""
    return ToolDefinition(
        name=qualified_name(row.server, row.name),
        description=row.description,
        input_schema=_object_schema(row.input_schema),
        output_schema=row.output_schema,
        kind=ToolKind.MCP,
        server=row.server,
        timeout=_MCP_TIMEOUT,
        retry_class=RetryClass(row.retry_class),
    )


def workflow_definition_from_row(row: WorkflowToolRow) -> ToolDefinition:
    """Return a webhook as a tool that is run."""
    return ToolDefinition(
        name=row.name,
        description=row.description,
        input_schema=_object_schema(row.input_schema),
        kind=ToolKind.WORKFLOW,
        timeout=timedelta(seconds=row.timeout_s),
        retry_class=RetryClass(row.retry_class),
        approval=ApprovalPolicy(row.approval),
    )


def _object_schema(stored: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a schema as providers take it: of an object, whatever else it says or does not."""
    return {"type": "object", **stored}
