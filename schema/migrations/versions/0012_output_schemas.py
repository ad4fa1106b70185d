"""The output schemas that MCP servers declare, beside the input schemas."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is filled by the next listing of a server's tools."""
    op.execute("ALTER TABLE mcp_tools ADD COLUMN output_schema jsonb")


def downgrade() -> None:
    """Drop the column."""
    op.execute("ALTER TABLE mcp_tools DROP COLUMN output_schema")
