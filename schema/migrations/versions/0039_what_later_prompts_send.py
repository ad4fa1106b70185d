"""What later prompts send of an answer: its tool calls, or nothing; and summaries of branches."""

from alembic import op

from schema.migrations.policies import secure, statements

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

# Answers of earlier releases have no sizes: they are estimated when they are read.
_ADDED = """
ALTER TABLE messages
    ADD COLUMN work_tokens integer,
    ADD COLUMN brief_tokens integer,
    ADD COLUMN left_out boolean NOT NULL DEFAULT false;
CREATE TABLE chat_summaries (
    id uuid PRIMARY KEY,
    chat_id uuid NOT NULL,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    message_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    content text NOT NULL CHECK (length(content) > 0),
    tokens integer NOT NULL,
    messages integer NOT NULL,
    model text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (message_id),
    FOREIGN KEY (message_id, chat_id) REFERENCES messages (id, chat_id) ON DELETE CASCADE
);
CREATE INDEX chat_summaries_chat_id_idx ON chat_summaries (chat_id);
CREATE INDEX chat_summaries_user_id_idx ON chat_summaries (user_id);
"""

_REMOVED = """
DROP TABLE chat_summaries;
ALTER TABLE messages
    DROP COLUMN left_out,
    DROP COLUMN brief_tokens,
    DROP COLUMN work_tokens;
"""


def upgrade() -> None:
    """Add the columns and the table; no row is written."""
    grants = "SELECT, INSERT, UPDATE, DELETE"
    for statement in (*statements(_ADDED), *secure("chat_summaries", grants=grants)):
        op.execute(statement)


def downgrade() -> None:
    """Remove them."""
    for statement in statements(_REMOVED):
        op.execute(statement)
