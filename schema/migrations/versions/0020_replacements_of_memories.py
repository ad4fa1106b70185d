"""Where suggestions come from, what they replace, and who wants none; what extraction costs."""

from alembic import op

from schema.migrations.policies import statements

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE memories
    DROP CONSTRAINT memories_status_check,
    ADD CONSTRAINT memories_status_check
        CHECK (status IN ('suggested', 'accepted', 'rejected', 'replaced')),
    ADD CONSTRAINT memories_of_one_user UNIQUE (id, user_id),
    ADD COLUMN passage text CHECK (length(passage) BETWEEN 1 AND 1000),
    ADD COLUMN replaces_id uuid,
    ADD COLUMN replaced_by_id uuid,
    ADD CONSTRAINT memories_replace_own
        FOREIGN KEY (replaces_id, user_id) REFERENCES memories (id, user_id)
        ON DELETE SET NULL (replaces_id),
    ADD CONSTRAINT memories_replaced_by_own
        FOREIGN KEY (replaced_by_id, user_id) REFERENCES memories (id, user_id)
        ON DELETE SET NULL (replaced_by_id);
CREATE INDEX memories_replaces_id_idx ON memories (replaces_id) WHERE replaces_id IS NOT NULL;
CREATE INDEX memories_replaced_by_id_idx ON memories (replaced_by_id)
    WHERE replaced_by_id IS NOT NULL;
ALTER TABLE preferences ADD COLUMN extract_memories boolean NOT NULL DEFAULT true;
ALTER TABLE ledger
    DROP CONSTRAINT ledger_kind_check,
    ADD CONSTRAINT ledger_kind_check CHECK (kind IN ('model', 'tool', 'extraction'));
"""

# The money of extractions stays counted, as that of tools outside any step.
_DOWN = """
UPDATE ledger SET kind = 'tool', tool_call_id = 'extraction' WHERE kind = 'extraction';
ALTER TABLE ledger
    DROP CONSTRAINT ledger_kind_check,
    ADD CONSTRAINT ledger_kind_check CHECK (kind IN ('model', 'tool'));
ALTER TABLE preferences DROP COLUMN extract_memories;
UPDATE memories SET status = 'rejected' WHERE status = 'replaced';
ALTER TABLE memories
    DROP COLUMN replaced_by_id,
    DROP COLUMN replaces_id,
    DROP COLUMN passage,
    DROP CONSTRAINT memories_of_one_user,
    DROP CONSTRAINT memories_status_check,
    ADD CONSTRAINT memories_status_check
        CHECK (status IN ('suggested', 'accepted', 'rejected'));
"""


def upgrade() -> None:
    """Add the columns; no memory that exists replaces another."""
    for statement in statements(_UP):
        op.execute(statement)


def downgrade() -> None:
    """Drop them; a replaced memory counts as rejected, so that it is not used again."""
    for statement in statements(_DOWN):
        op.execute(statement)
