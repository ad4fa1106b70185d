"""Chats are pinned and tagged, and answers get feedback."""

from alembic import op

from schema.migrations.policies import secure, statements

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

_ADDED = """
ALTER TABLE chats ADD COLUMN pinned_at timestamptz;
ALTER TABLE chats ADD COLUMN tags text[] NOT NULL DEFAULT '{}' CHECK (cardinality(tags) <= 20);
CREATE INDEX chats_pinned_idx ON chats (user_id, updated_at DESC, id DESC)
    WHERE pinned_at IS NOT NULL;
CREATE INDEX turns_unfinished_of_user_idx ON turns (user_id, id DESC)
    WHERE status IN ('queued', 'running', 'awaiting_approval');
CREATE TABLE feedback (
    id uuid PRIMARY KEY,
    message_id uuid NOT NULL UNIQUE,
    chat_id uuid NOT NULL,
    turn_id uuid NOT NULL,
    user_id uuid NOT NULL,
    rating text NOT NULL CHECK (rating IN ('up', 'down')),
    reason text,
    text text,
    model text NOT NULL,
    prompt_version text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (message_id, chat_id) REFERENCES messages (id, chat_id) ON DELETE CASCADE,
    CONSTRAINT feedback_in_own_chat
        FOREIGN KEY (chat_id, user_id) REFERENCES chats (id, user_id) ON DELETE CASCADE
);
CREATE INDEX feedback_user_id_idx ON feedback (user_id, id DESC);
CREATE INDEX feedback_rating_idx ON feedback (rating, id DESC);
CREATE INDEX feedback_model_idx ON feedback (model, id DESC);
CREATE INDEX feedback_prompt_version_idx ON feedback (prompt_version, id DESC);
"""

_TAKEN_BACK = """
DROP TABLE feedback;
DROP INDEX turns_unfinished_of_user_idx;
DROP INDEX chats_pinned_idx;
ALTER TABLE chats DROP COLUMN tags;
ALTER TABLE chats DROP COLUMN pinned_at;
"""


def upgrade() -> None:
    """Add columns, indexes and the table of feedback."""
    for statement in statements(_ADDED):
        op.execute(statement)
    for statement in secure("feedback", grants="SELECT, INSERT, UPDATE, DELETE"):
        op.execute(statement)


def downgrade() -> None:
    """Remove them."""
    for statement in statements(_TAKEN_BACK):
        op.execute(statement)
