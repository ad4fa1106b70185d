"""Turns that were not asked here: copies of a branch, and imported conversations."""

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the origin; all turns that exist were asked."""
    op.execute(
        "ALTER TABLE turns ADD COLUMN origin text NOT NULL DEFAULT 'asked' "
        "CHECK (origin IN ('asked', 'copied', 'imported'))"
    )


def downgrade() -> None:
    """Drop it: copies then look as if they had been asked."""
    op.execute("ALTER TABLE turns DROP COLUMN origin")
