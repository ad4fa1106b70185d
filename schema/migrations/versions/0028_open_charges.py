"""An index of the ledger's open rows: the sweep looks for those that were never settled."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.execute("CREATE INDEX ledger_open_idx ON ledger (created_at) WHERE status = 'open'")


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP INDEX ledger_open_idx")
