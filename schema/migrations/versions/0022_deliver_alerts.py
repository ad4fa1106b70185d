"""The delivery of alerts to a webhook: what waits, since when, and how often it was tried."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_UPGRADE = (
    # Alerts from before are not sent: a default for them, and another for later ones.
    """
    ALTER TABLE alerts
        ADD COLUMN delivery_status text NOT NULL DEFAULT 'stored'
            CHECK (delivery_status IN ('pending', 'delivered', 'failed', 'stored')),
        ADD COLUMN delivery_attempts integer NOT NULL DEFAULT 0 CHECK (delivery_attempts >= 0),
        ADD COLUMN delivery_problem text CHECK (length(delivery_problem) <= 500),
        ADD COLUMN delivered_at timestamptz,
        ADD COLUMN next_attempt_at timestamptz NOT NULL DEFAULT now()
    """,
    "ALTER TABLE alerts ALTER COLUMN delivery_status SET DEFAULT 'pending'",
    "CREATE INDEX alerts_pending_idx ON alerts (next_attempt_at) WHERE delivery_status = 'pending'",
)


def upgrade() -> None:
    """Add the columns, and the index of what waits."""
    for statement in _UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    """Forget what was delivered."""
    op.execute(
        "ALTER TABLE alerts DROP COLUMN delivery_status, DROP COLUMN delivery_attempts, "
        "DROP COLUMN delivery_problem, DROP COLUMN delivered_at, DROP COLUMN next_attempt_at"
    )
