"""Estimates of tokens: of each message, and of the prompt that a step sent."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; null is what was stored before, and is estimated where it is read."""
    op.execute("ALTER TABLE messages ADD COLUMN tokens integer CHECK (tokens >= 0)")
    op.execute("ALTER TABLE steps ADD COLUMN prompt_tokens bigint CHECK (prompt_tokens >= 0)")


def downgrade() -> None:
    """Drop the columns."""
    op.execute("ALTER TABLE steps DROP COLUMN prompt_tokens")
    op.execute("ALTER TABLE messages DROP COLUMN tokens")
