"""The names that tools have on their MCP servers, where models know them by others."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; null means that the name is the same."""
    op.execute(
        "ALTER TABLE mcp_tools ADD COLUMN name_on_server text "
        "CHECK (length(name_on_server) BETWEEN 1 AND 256)"
    )


def downgrade() -> None:
    """Drop the column, and the tools that can't be called without it."""
    op.execute("DELETE FROM mcp_tools WHERE name_on_server IS NOT NULL")
    op.execute("ALTER TABLE mcp_tools DROP COLUMN name_on_server")
