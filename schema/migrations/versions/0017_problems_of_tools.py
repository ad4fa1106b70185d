"""Why a tool of an MCP server or a webhook is not offered to models."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.execute("ALTER TABLE mcp_tools ADD COLUMN problem text")
    op.execute("ALTER TABLE workflow_tools ADD COLUMN problem text")


def downgrade() -> None:
    """Drop the columns, and the tools that only they keep from being offered."""
    op.execute("DELETE FROM mcp_tools WHERE problem IS NOT NULL")
    op.execute("ALTER TABLE mcp_tools DROP COLUMN problem")
    op.execute("ALTER TABLE workflow_tools DROP COLUMN problem")
