"""Files of users, in pieces or in object storage, and where they are attached."""

from alembic import op

from schema.migrations.policies import (
    ACT_AS_CALLER,
    ACT_AS_SERVICE,
    hide,
    owns,
    policy,
    secure,
    statements,
)

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

# An attachment refers to no row of `files`: that a file was there stays visible when it is deleted.
_TABLES = """
CREATE TABLE files (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name text NOT NULL,
    content_type text NOT NULL,
    size integer NOT NULL,
    sha256 bytea NOT NULL,
    storage text NOT NULL CHECK (storage IN ('postgres', 's3')),
    origin text NOT NULL DEFAULT 'upload' CHECK (origin IN ('upload', 'tool')),
    width integer,
    height integer,
    pages integer,
    tokens integer NOT NULL,
    model_type text,
    model_size integer,
    text text,
    attached boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT files_of_one_user UNIQUE (id, user_id)
);
CREATE INDEX files_user_id_idx ON files (user_id, id);
CREATE INDEX files_unattached_idx ON files (created_at) WHERE NOT attached;
CREATE TABLE file_pieces (
    file_id uuid NOT NULL,
    variant text NOT NULL CHECK (variant IN ('original', 'model')),
    position integer NOT NULL,
    user_id uuid NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (file_id, variant, position),
    CONSTRAINT file_pieces_of_own_file
        FOREIGN KEY (file_id, user_id) REFERENCES files (id, user_id) ON DELETE CASCADE
);
ALTER TABLE file_pieces ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE attachments (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    message_id uuid REFERENCES messages (id) ON DELETE CASCADE,
    turn_id uuid,
    step integer,
    tool_call_id text,
    position integer NOT NULL,
    file_id uuid NOT NULL,
    name text NOT NULL,
    content_type text NOT NULL,
    size integer NOT NULL,
    CONSTRAINT attachments_of_tool_calls
        FOREIGN KEY (turn_id, step, tool_call_id)
        REFERENCES tool_calls (turn_id, step, tool_call_id) ON DELETE CASCADE,
    CONSTRAINT attachments_of_one_thing
        CHECK (num_nonnulls(turn_id, step, tool_call_id)
               = CASE WHEN message_id IS NULL THEN 3 ELSE 0 END)
);
CREATE UNIQUE INDEX attachments_message_id_idx ON attachments (message_id, position)
    WHERE message_id IS NOT NULL;
CREATE UNIQUE INDEX attachments_tool_call_idx
    ON attachments (turn_id, step, tool_call_id, position) WHERE turn_id IS NOT NULL;
CREATE INDEX attachments_user_id_idx ON attachments (user_id);
CREATE INDEX attachments_file_id_idx ON attachments (file_id);
CREATE TABLE file_erasures (
    file_id uuid PRIMARY KEY,
    due_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX file_erasures_due_at_idx ON file_erasures (due_at);
"""

# What takes its last attachment away takes the file away, too. The lock waits for a message that is
# attaching the file right now; the statement after it sees that attachment.
_DETACH = f"""
CREATE FUNCTION everturn_delete_detached_file() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    PERFORM FROM files WHERE id = OLD.file_id AND user_id = OLD.user_id FOR UPDATE;
    DELETE FROM files WHERE id = OLD.file_id AND user_id = OLD.user_id
        AND NOT EXISTS (SELECT FROM attachments WHERE file_id = OLD.file_id);
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""  # noqa: S608 -- constants

# In the transaction that deletes the row: no crash leaves an object behind.
_ERASE = f"""
CREATE FUNCTION everturn_erase_object() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    INSERT INTO file_erasures (file_id) VALUES (OLD.id)
        ON CONFLICT (file_id) DO UPDATE SET due_at = now();
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""  # noqa: S608 -- constants

# An object is announced before it is written, as one to delete: whatever dies leaves none behind.
_KEEP = f"""
CREATE FUNCTION everturn_keep_object() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    DELETE FROM file_erasures WHERE file_id = NEW.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the object has been erased' USING ERRCODE = 'serialization_failure';
    END IF;
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""  # noqa: S608 -- constants

_TRIGGERS = """
CREATE TRIGGER files_keep_their_object AFTER INSERT ON files
    FOR EACH ROW WHEN (NEW.storage = 's3') EXECUTE FUNCTION everturn_keep_object();
CREATE TRIGGER attachments_keep_files AFTER DELETE ON attachments
    FOR EACH ROW EXECUTE FUNCTION everturn_delete_detached_file();
CREATE TRIGGER files_leave_no_object AFTER DELETE ON files
    FOR EACH ROW WHEN (OLD.storage = 's3') EXECUTE FUNCTION everturn_erase_object();
"""

_TAKEN_BACK = """
DROP TABLE file_erasures;
DROP TABLE attachments;
DROP TABLE file_pieces;
DROP TABLE files;
DROP FUNCTION everturn_keep_object();
DROP FUNCTION everturn_erase_object();
DROP FUNCTION everturn_delete_detached_file();
"""


def upgrade() -> None:
    """Add the tables, with their policies and triggers."""
    functions = (_DETACH, _ERASE, _KEEP)
    for statement in (
        *statements(_TABLES),
        *_security(),
        *functions,
        *statements(_TRIGGERS),
    ):
        op.execute(statement)


def downgrade() -> None:
    """Remove them with all files; objects in storage stay."""
    for statement in statements(_TAKEN_BACK):
        op.execute(statement)


def _security() -> list[str]:
    """Files are for their owner alone: administrators see where they are attached."""
    everything = "SELECT, INSERT, UPDATE, DELETE"
    return [
        *hide("files", grants=everything),
        policy("files", "owner", "ALL", owns()),
        *hide("file_pieces", grants="SELECT, INSERT, DELETE"),
        policy("file_pieces", "owner", "ALL", owns()),
        *secure("attachments", grants=everything),
        *hide("file_erasures", grants=everything),
    ]
