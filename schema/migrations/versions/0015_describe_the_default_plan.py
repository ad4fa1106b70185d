"""The default plan's description in plain English; one that an administrator wrote stays."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_BEFORE = "What everybody has who was given no other plan."
_AFTER = "For users without another plan."

_DESCRIBE = sa.text("UPDATE plans SET description = :after WHERE description = :before")


def upgrade() -> None:
    """Reword the description that the second migration gave it."""
    _describe(before=_BEFORE, after=_AFTER)


def downgrade() -> None:
    """Restore the wording."""
    _describe(before=_AFTER, after=_BEFORE)


def _describe(*, before: str, after: str) -> None:
    # Forced policies hide all plans from an owner without an actor.
    op.execute("ALTER TABLE plans NO FORCE ROW LEVEL SECURITY")
    op.execute(_DESCRIBE.bindparams(before=before, after=after))
    op.execute("ALTER TABLE plans FORCE ROW LEVEL SECURITY")
