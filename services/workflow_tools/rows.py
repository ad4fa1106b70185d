"""Owns turning rows of workflow tools into what administrators see: all but the secret."""

from schema.tables import WorkflowToolRow
from schema.tools import ApprovalPolicy, RetryClass
from schema.workflow_tools import WorkflowTool


def workflow_tool_from_row(row: WorkflowToolRow) -> WorkflowTool:
    """Return the workflow tool that the row holds."""
    return WorkflowTool(
        name=row.name,
        description=row.description,
        url=row.url,
        input_schema=row.input_schema,
        timeout_s=row.timeout_s,
        retry_class=RetryClass(row.retry_class),
        approval=ApprovalPolicy(row.approval),
        enabled=row.enabled,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def secret_owner(name: str) -> str:
    """Return for whom the secret of a workflow tool is sealed."""
    return f"workflow_tool:{name}"
