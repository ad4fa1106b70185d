"""Each message follows another one: a chat is a tree, and shows the branch with its leaf."""

from alembic import op

from schema.migrations.policies import statements

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_ADDED = """
ALTER TABLE messages ADD COLUMN parent_id uuid;
ALTER TABLE messages ADD CONSTRAINT messages_of_one_chat UNIQUE (id, chat_id);
ALTER TABLE chats ADD COLUMN leaf_id uuid;
-- Forced policies hide all rows from an owner without an actor.
ALTER TABLE messages NO FORCE ROW LEVEL SECURITY;
ALTER TABLE chats NO FORCE ROW LEVEL SECURITY;
"""

# Only the newest answer of a chat could be regenerated: all turns that were superseded since the
# last one that was not answered the same place of the conversation.
_FILLED = """
UPDATE messages SET parent_id = coalesce(question.id, before.id)
FROM (
    SELECT id, chat_id, role, turn_id, max(turn_id::text) FILTER (WHERE NOT superseded) OVER (
        PARTITION BY chat_id ORDER BY turn_id GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )::uuid AS turn_before
    FROM messages
) AS place
LEFT JOIN messages AS question
    ON question.turn_id = place.turn_id AND question.role = 'user' AND place.role = 'assistant'
LEFT JOIN LATERAL (
    SELECT id FROM messages AS said WHERE said.turn_id = place.turn_before ORDER BY id DESC LIMIT 1
) AS before ON true
WHERE messages.id = place.id;
UPDATE chats SET leaf_id = (
    SELECT id FROM messages WHERE chat_id = chats.id AND NOT superseded
    ORDER BY turn_id DESC, messages.id DESC LIMIT 1
);
"""

_GUARDED = """
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
ALTER TABLE chats FORCE ROW LEVEL SECURITY;
-- Checked at the end: a turn, a chat or a user takes messages along in any order.
ALTER TABLE messages ADD CONSTRAINT messages_follow_one_of_their_chat
    FOREIGN KEY (parent_id, chat_id) REFERENCES messages (id, chat_id)
    DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE chats ADD CONSTRAINT chats_show_a_message_of_theirs
    FOREIGN KEY (leaf_id, id) REFERENCES messages (id, chat_id) ON DELETE SET NULL (leaf_id)
    DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX messages_parent_id_idx ON messages (chat_id, parent_id);
ALTER TABLE messages ALTER COLUMN parent_id SET DEFAULT '00000000-0000-0000-0000-000000000000';
CREATE TRIGGER messages_without_a_place BEFORE INSERT ON messages FOR EACH ROW
    WHEN (NEW.parent_id = '00000000-0000-0000-0000-000000000000')
    EXECUTE FUNCTION everturn_place_message();
"""

# Processes of the release before, which run until a deployment has replaced them, name no parent.
_PLACE = """
CREATE FUNCTION everturn_place_message() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    replaced uuid := (SELECT regenerates FROM turns WHERE id = NEW.turn_id);
BEGIN
    IF NEW.role = 'assistant' THEN
        NEW.parent_id := (SELECT user_message_id FROM turns WHERE id = NEW.turn_id);
        UPDATE messages SET parent_id = NEW.id
            WHERE chat_id = NEW.chat_id AND parent_id = NEW.parent_id
            AND role = 'user' AND turn_id > NEW.turn_id;
        UPDATE chats SET leaf_id = NEW.id
            WHERE id = NEW.chat_id AND leaf_id = NEW.parent_id;
    ELSE
        IF replaced IS NULL THEN
            NEW.parent_id := (SELECT leaf_id FROM chats WHERE id = NEW.chat_id);
        ELSE
            NEW.parent_id := (
                SELECT parent_id FROM messages WHERE turn_id = replaced AND role = 'user');
        END IF;
        UPDATE chats SET leaf_id = NEW.id WHERE id = NEW.chat_id;
    END IF;
    RETURN NEW;
END $$
"""

_TAKEN_BACK = """
DROP TRIGGER messages_without_a_place ON messages;
DROP FUNCTION everturn_place_message();
ALTER TABLE chats DROP COLUMN leaf_id;
ALTER TABLE messages DROP COLUMN parent_id;
ALTER TABLE messages DROP CONSTRAINT messages_of_one_chat;
"""


def upgrade() -> None:
    """Give each message its place. This writes the tables of messages and chats once."""
    for statement in (*statements(_ADDED), *statements(_FILLED), _PLACE, *statements(_GUARDED)):
        op.execute(statement)


def downgrade() -> None:
    """Forget the places; what is not on a chat's branch is listed with it."""
    for statement in statements(_TAKEN_BACK):
        op.execute(statement)
