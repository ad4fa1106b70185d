"""Mails to users, whether an email address is verified, and what a session is recognized by."""

from alembic import op

from schema.migrations.policies import hide, statements

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE users
    ADD COLUMN email_verified boolean NOT NULL DEFAULT false,
    ADD COLUMN pending_email text CHECK (
        pending_email = lower(pending_email) AND length(pending_email) <= 254
    );
ALTER TABLE refresh_tokens
    ADD COLUMN user_agent text CHECK (length(user_agent) <= 100),
    ADD COLUMN network text CHECK (length(network) <= 50);

CREATE TABLE mails (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL CHECK (length(kind) <= 50),
    address text NOT NULL CHECK (length(address) <= 254),
    bound_to bytea CHECK (length(bound_to) = 32),
    token_hashes bytea[] NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'sent', 'refused', 'expired')),
    problem text CHECK (length(problem) <= 100),
    attempts integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    finished_at timestamptz,
    used_at timestamptz
);
CREATE INDEX mails_user_id_idx ON mails (user_id, kind, created_at);
CREATE INDEX mails_expires_at_idx ON mails (expires_at);
CREATE INDEX mails_unstarted_idx ON mails (created_at) WHERE status = 'pending' AND attempts = 0;
"""

# Processes of the release before, which run until a deployment has replaced them, change an address
# without this column.
_FUNCTION = """
CREATE FUNCTION everturn_email_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.email_verified := false;
    RETURN NEW;
END $$
"""
_TRIGGER = """
CREATE TRIGGER users_email_changed BEFORE UPDATE OF email ON users FOR EACH ROW
    WHEN (NEW.email IS DISTINCT FROM OLD.email) EXECUTE FUNCTION everturn_email_changed()
"""


def upgrade() -> None:
    """Add the columns, the table, and what takes a verification back with the address."""
    for statement in (
        *statements(_TABLES),
        *hide("mails", grants="SELECT, INSERT, UPDATE, DELETE"),
        _FUNCTION,
        _TRIGGER,
    ):
        op.execute(statement)


def downgrade() -> None:
    """Forget what was verified, and drop mails."""
    op.execute("DROP TABLE mails")
    op.execute("DROP TRIGGER users_email_changed ON users")
    op.execute("DROP FUNCTION everturn_email_changed()")
    op.execute("ALTER TABLE refresh_tokens DROP COLUMN user_agent, DROP COLUMN network")
    op.execute("ALTER TABLE users DROP COLUMN email_verified, DROP COLUMN pending_email")
