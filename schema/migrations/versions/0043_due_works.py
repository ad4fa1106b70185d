"""Works that are due after turns: stored by the statement that ends a turn, deleted once done."""

from alembic import op

from schema.migrations.policies import secure, statements

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None

# In the order in which works are claimed: for each kind, fairly over users, oldest turn first. The
# release after this one may know other works. Rows change all the time, so vacuum early.
_TABLE = """
CREATE TABLE due_works (
    work text NOT NULL,
    user_id uuid NOT NULL,
    turn_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),
    claim uuid,
    failures integer NOT NULL DEFAULT 0,
    PRIMARY KEY (work, user_id, turn_id),
    CONSTRAINT due_works_of_own_turn
        FOREIGN KEY (turn_id, user_id) REFERENCES turns (id, user_id) ON DELETE CASCADE
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX due_works_turn_id_idx ON due_works (turn_id);
"""


def upgrade() -> None:
    """Create the table."""
    for statement in statements(_TABLE):
        op.execute(statement)
    for statement in secure("due_works", grants="SELECT, INSERT, UPDATE, DELETE"):
        op.execute(statement)


def downgrade() -> None:
    """Drop it: what waits is not done."""
    op.execute("DROP TABLE due_works")
