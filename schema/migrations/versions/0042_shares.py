"""Shares: branches that anyone with a link can read."""

from alembic import op

from schema.migrations.policies import ACT_AS_CALLER, ACT_AS_SERVICE, secure, statements

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE shares (
    id uuid PRIMARY KEY,
    chat_id uuid NOT NULL,
    message_id uuid NOT NULL,
    user_id uuid NOT NULL,
    title text NOT NULL CHECK (length(title) <= 200),
    token_hash bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    FOREIGN KEY (message_id, chat_id) REFERENCES messages (id, chat_id) ON DELETE CASCADE,
    CONSTRAINT shares_of_own_chat
        FOREIGN KEY (chat_id, user_id) REFERENCES chats (id, user_id) ON DELETE CASCADE
);
CREATE INDEX shares_chat_id_idx ON shares (chat_id, id DESC);
CREATE INDEX shares_message_id_idx ON shares (message_id);
CREATE INDEX shares_user_id_idx ON shares (user_id);
"""

# The only way in which someone who is not signed in reads messages: those that the share's last
# message follows, by the hash of a token that can't be guessed, and only what is said.
_READ = f"""
CREATE FUNCTION everturn_read_share(of_token bytea, most integer) RETURNS TABLE (
    title text, shared_at timestamptz, expires_at timestamptz,
    role text, content text, said_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    RETURN QUERY
    WITH RECURSIVE share AS (
        SELECT shares.title, shares.created_at, shares.expires_at, shares.message_id
        FROM shares JOIN users ON users.id = shares.user_id
        WHERE shares.token_hash = of_token AND users.status = 'active'
          AND (shares.expires_at IS NULL OR shares.expires_at > now())
    ), branch AS (
        SELECT said.id, said.parent_id, said.turn_id, 1 AS length
        FROM share JOIN messages AS said ON said.id = share.message_id
        UNION ALL
        SELECT said.id, said.parent_id, said.turn_id, branch.length + 1
        FROM branch JOIN messages AS said ON said.id = branch.parent_id
        WHERE branch.length < most
    )
    SELECT share.title, share.created_at, share.expires_at, said.role, said.content,
           said.created_at
    FROM share CROSS JOIN branch JOIN messages AS said ON said.id = branch.id
    ORDER BY said.turn_id, said.id;
    {ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- assignments of ours


def upgrade() -> None:
    """Create the table, and the function that reads it for everyone."""
    for statement in statements(_TABLE):
        op.execute(statement)
    for statement in secure("shares", grants="SELECT, INSERT, DELETE"):
        op.execute(statement)
    op.execute(_READ)


def downgrade() -> None:
    """Drop both: all links end."""
    op.execute("DROP FUNCTION everturn_read_share(bytea, integer)")
    op.execute("DROP TABLE shares")
