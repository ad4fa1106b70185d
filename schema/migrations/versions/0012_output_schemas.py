"""What MCP servers promise of their tools' results, next to what these take."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Hold a schema where a server declares one, from the next listing of its tools on."""
    op.execute("ALTER TABLE mcp_tools ADD COLUMN output_schema jsonb")


def downgrade() -> None:
    """Forget what was promised."""
    op.execute("ALTER TABLE mcp_tools DROP COLUMN output_schema")
