"""A message sent while a turn runs may join it: a turn then has several of its user's messages."""

from alembic import op

from schema.migrations.policies import statements

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

_ADDED = """
ALTER TABLE turns ADD COLUMN steers uuid;
ALTER TABLE turns ADD COLUMN joined_step integer CHECK (joined_step >= 1);
ALTER TABLE turns ADD CONSTRAINT turns_steer_one_of_their_user
    FOREIGN KEY (steers, user_id) REFERENCES turns (id, user_id) ON DELETE SET NULL (steers);
CREATE INDEX turns_steers_idx ON turns (steers, id) WHERE steers IS NOT NULL;
ALTER TABLE messages ADD COLUMN joined_step integer CHECK (joined_step >= 0);
CREATE UNIQUE INDEX messages_one_of_each_role_but_for_joined_ones
    ON messages (turn_id, role, (CASE WHEN joined_step >= 1 THEN id END)) NULLS NOT DISTINCT;
ALTER TABLE messages DROP CONSTRAINT messages_one_of_each_role_in_a_turn;
"""

# A joined message returns to the turn that it was sent with, which has ended.
_TAKEN_BACK = """
ALTER TABLE messages NO FORCE ROW LEVEL SECURITY;
ALTER TABLE turns NO FORCE ROW LEVEL SECURITY;
UPDATE messages SET turn_id = turns.id FROM turns
WHERE turns.user_message_id = messages.id AND turns.joined_step IS NOT NULL;
ALTER TABLE turns FORCE ROW LEVEL SECURITY;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
ALTER TABLE messages ADD CONSTRAINT messages_one_of_each_role_in_a_turn UNIQUE (turn_id, role);
DROP INDEX messages_one_of_each_role_but_for_joined_ones;
ALTER TABLE messages DROP COLUMN joined_step;
ALTER TABLE turns DROP COLUMN joined_step;
ALTER TABLE turns DROP COLUMN steers;
"""


def upgrade() -> None:
    """Note which turn a message is to join, and before which step it did."""
    for statement in statements(_ADDED):
        op.execute(statement)


def downgrade() -> None:
    """Forget which messages joined a turn; they stay in their place of the chat."""
    for statement in statements(_TAKEN_BACK):
        op.execute(statement)
