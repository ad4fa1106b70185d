"""Owns how tools look to administrators: as they are defined, and as was decided about them."""

from typing import Final

from schema.tables import ToolSettingsRow
from schema.tools import (
    SERVER_SEPARATOR,
    AdministeredTool,
    ApprovalPolicy,
    RetryClass,
    ToolDefinition,
)
from schema.users import UserRole

_FIRST_VERSION: Final = 1
"""The version of a tool that nobody has decided about yet."""


def administered(tool: ToolDefinition) -> AdministeredTool:
    """Return a tool that nobody has decided about."""
    return AdministeredTool(
        name=tool.name,
        kind=tool.kind,
        server=tool.server,
        description=tool.description,
        input_schema=tool.input_schema,
        default_approval=tool.approval,
        retry_class=tool.retry_class,
        timeout_s=tool.timeout.total_seconds(),
        cost_usd=tool.cost_usd,
        enabled=True,
        approval=None,
        roles=None,
        changed_at=None,
        version=_FIRST_VERSION,
    )


def with_decision(tool: AdministeredTool, row: ToolSettingsRow | None) -> AdministeredTool:
    """Return the tool with what was decided about it, if anything was."""
    if row is None:
        return tool
    decided = {
        "retry_class": None if row.retry_class is None else RetryClass(row.retry_class),
        "timeout_s": row.timeout_s,
        "cost_usd": row.cost_usd,
    }
    return tool.model_copy(
        update={
            "enabled": row.enabled,
            "approval": None if row.approval is None else ApprovalPolicy(row.approval),
            "roles": None if row.roles is None else tuple(map(UserRole, row.roles)),
            "changed_at": row.updated_at,
            "version": row.version,
            **{name: value for name, value in decided.items() if value is not None},
        }
    )


def qualified_name(server: str, tool: str) -> str:
    """Return the name of a server's tool among all tools. A server's own has no underscore."""
    return f"{server}{SERVER_SEPARATOR}{tool}"
