"""Archived chats, regenerated answers, the parts of a turn's prompt, search in messages."""

from alembic import op

from schema.migrations.policies import IS_SIGNED_IN, hide, policy, secure, statements

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CHANGES = """
ALTER TABLE chats ADD COLUMN archived_at timestamptz;
ALTER TABLE chats ADD COLUMN version integer NOT NULL DEFAULT 1;
CREATE INDEX chats_updated_at_idx ON chats (user_id, updated_at DESC, id DESC);

ALTER TABLE turns ADD COLUMN regenerates uuid;
ALTER TABLE turns ADD CONSTRAINT turns_regenerate_own
    FOREIGN KEY (regenerates, user_id) REFERENCES turns (id, user_id)
    ON DELETE SET NULL (regenerates);
CREATE INDEX turns_regenerates_idx ON turns (regenerates) WHERE regenerates IS NOT NULL;
CREATE INDEX turns_user_id_idx ON turns (user_id, id DESC);
CREATE INDEX turns_status_idx ON turns (status, id DESC);
CREATE INDEX ledger_created_at_idx ON ledger (created_at);

ALTER TABLE messages ADD COLUMN superseded boolean NOT NULL DEFAULT false;

CREATE TABLE turn_contexts (
    turn_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    layers jsonb NOT NULL,
    sources jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT turn_contexts_in_own_turn
        FOREIGN KEY (turn_id, user_id) REFERENCES turns (id, user_id) ON DELETE CASCADE
);
CREATE INDEX turn_contexts_user_id_idx ON turn_contexts (user_id);

CREATE TABLE erasures (
    turn_id uuid PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);
"""

_TAKEN_BACK = """
DROP TABLE erasures;
DROP TABLE turn_contexts;
ALTER TABLE messages DROP COLUMN superseded;
DROP INDEX ledger_created_at_idx;
DROP INDEX turns_status_idx;
DROP INDEX turns_user_id_idx;
DROP INDEX turns_regenerates_idx;
ALTER TABLE turns DROP CONSTRAINT turns_regenerate_own;
ALTER TABLE turns DROP COLUMN regenerates;
DROP INDEX chats_updated_at_idx;
ALTER TABLE chats DROP COLUMN version;
ALTER TABLE chats DROP COLUMN archived_at;
"""


def upgrade() -> None:
    """Add tables, columns and policies."""
    for statement in statements(_CHANGES) + _security():
        op.execute(statement)


def downgrade() -> None:
    """Remove them."""
    for statement in statements(_TAKEN_BACK):
        op.execute(statement)


def _security() -> list[str]:
    """Users request erasures when they delete; the service carries them out."""
    own_turn = "EXISTS (SELECT FROM turns WHERE turns.id = turn_id)"
    return [
        *secure("turn_contexts", grants="SELECT, INSERT, UPDATE, DELETE"),
        *hide("erasures", grants="SELECT, INSERT, DELETE"),
        policy("erasures", "asker", "INSERT", f"{IS_SIGNED_IN} AND {own_turn}"),
    ]
