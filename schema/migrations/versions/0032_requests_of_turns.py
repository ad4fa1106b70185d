"""The request that created a turn: the log has both under its id."""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE turns ADD COLUMN request_id text CHECK (length(request_id) <= 128)")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE turns DROP COLUMN request_id")
