"""What messages ask of their turns, and what comes of it: thoughts, and answers as values."""

from alembic import op

from schema.migrations.policies import statements

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

_ADDED = """
ALTER TABLE turns ADD COLUMN options jsonb;
ALTER TABLE messages ADD COLUMN client_metadata jsonb, ADD COLUMN structured jsonb;
ALTER TABLE steps ADD COLUMN thinking text NOT NULL DEFAULT '', ADD COLUMN problem text;
"""

_TAKEN_BACK = """
ALTER TABLE steps DROP COLUMN problem, DROP COLUMN thinking;
ALTER TABLE messages DROP COLUMN structured, DROP COLUMN client_metadata;
ALTER TABLE turns DROP COLUMN options;
"""


def upgrade() -> None:
    """Add the columns; none of them rewrites its table."""
    for statement in statements(_ADDED):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for statement in statements(_TAKEN_BACK):
        op.execute(statement)
