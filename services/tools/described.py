"""Owns how tools of every kind look to administrators, from a definition or a row of theirs."""

from schema.tables import McpToolRow, ToolSettingsRow, WorkflowToolRow
from schema.tools import (
    SERVER_SEPARATOR,
    AdministeredTool,
    ApprovalPolicy,
    RetryClass,
    ToolKind,
)
from schema.users import UserRole
from services.tools.definition import ToolDefinition

FIRST_VERSION = 1
"""The version of a tool that nobody has decided about yet."""


def local_tool(tool: ToolDefinition) -> AdministeredTool:
    """Return a tool that runs in our own processes."""
    return AdministeredTool(
        name=tool.name,
        kind=tool.kind,
        server=None,
        description=tool.description,
        input_schema=tool.input_schema,
        default_approval=tool.approval,
        retry_class=tool.retry_class,
        timeout_s=tool.timeout.total_seconds(),
        enabled=True,
        approval=None,
        roles=None,
        changed_at=None,
        version=FIRST_VERSION,
    )


def mcp_tool(row: McpToolRow) -> AdministeredTool:
    """Return a tool of an MCP server, under the name by which a model calls it."""
    return AdministeredTool(
        name=qualified_name(row.server, row.name),
        kind=ToolKind.MCP,
        server=row.server,
        description=row.description,
        input_schema=row.input_schema,
        default_approval=ApprovalPolicy.AUTO,
        retry_class=None,
        timeout_s=None,
        enabled=True,
        approval=None,
        roles=None,
        changed_at=None,
        version=FIRST_VERSION,
    )


def workflow_tool(row: WorkflowToolRow) -> AdministeredTool:
    """Return a tool that is a webhook."""
    return AdministeredTool(
        name=row.name,
        kind=ToolKind.WORKFLOW,
        server=None,
        description=row.description,
        input_schema=row.input_schema,
        default_approval=ApprovalPolicy(row.approval),
        retry_class=RetryClass(row.retry_class),
        timeout_s=row.timeout_s,
        enabled=True,
        approval=None,
        roles=None,
        changed_at=None,
        version=FIRST_VERSION,
    )


def with_decision(tool: AdministeredTool, row: ToolSettingsRow | None) -> AdministeredTool:
    """Return the tool with what was decided about it, if anything was."""
    if row is None:
        return tool
    return tool.model_copy(
        update={
            "enabled": row.enabled,
            "approval": None if row.approval is None else ApprovalPolicy(row.approval),
            "roles": None if row.roles is None else tuple(map(UserRole, row.roles)),
            "changed_at": row.updated_at,
            "version": row.version,
        }
    )


def qualified_name(server: str, tool: str) -> str:
    """Return the name of a server's tool among all tools. A server's own has no underscore."""
    return f"{server}{SERVER_SEPARATOR}{tool}"
