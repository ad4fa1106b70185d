"""Which client used a refresh token: the same one may repeat its request within a moment."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the hash of the client; tokens that were used before have none."""
    op.execute("ALTER TABLE refresh_tokens ADD COLUMN used_by bytea")


def downgrade() -> None:
    """Forget the clients."""
    op.execute("ALTER TABLE refresh_tokens DROP COLUMN used_by")
