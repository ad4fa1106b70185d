"""Chats without a title yet, and what titles and summaries of chats cost."""

from alembic import op

from schema.migrations.policies import statements

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

# Empty instead of null: processes of the release before read a text.
_UP = """
ALTER TABLE chats
    DROP CONSTRAINT chats_title_check,
    ADD CONSTRAINT chats_title_check CHECK (length(title) <= 200);
ALTER TABLE ledger
    DROP CONSTRAINT ledger_kind_check,
    ADD CONSTRAINT ledger_kind_check
        CHECK (kind IN ('model', 'tool', 'extraction', 'title', 'compaction'));
"""

# The money stays counted, as that of extractions.
_DOWN = """
UPDATE ledger SET kind = 'extraction', tool_call_id = kind WHERE kind IN ('title', 'compaction');
ALTER TABLE ledger
    DROP CONSTRAINT ledger_kind_check,
    ADD CONSTRAINT ledger_kind_check CHECK (kind IN ('model', 'tool', 'extraction'));
UPDATE chats SET title = 'New chat' WHERE title = '';
ALTER TABLE chats
    DROP CONSTRAINT chats_title_check,
    ADD CONSTRAINT chats_title_check CHECK (length(title) BETWEEN 1 AND 200);
"""


def upgrade() -> None:
    """Widen both checks."""
    for statement in statements(_UP):
        op.execute(statement)


def downgrade() -> None:
    """Narrow them again; a chat without a title gets one."""
    for statement in statements(_DOWN):
        op.execute(statement)
