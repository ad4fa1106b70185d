"""Users, chats, turns and the ledger, under forced row-level security from the start."""

from alembic import op

from schema.migrations.policies import (
    ACTOR_FUNCTIONS,
    APPLICATION_ROLE,
    DROP_ACTOR_FUNCTIONS,
    hide,
    secure,
    statements,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Foreign keys are checked past the policies. Those that include the user keep users from attaching
# rows to another user's chat or turn.
_TABLES = """
CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL CHECK (email = lower(email) AND length(email) <= 254),
    display_name text CHECK (length(display_name) <= 100),
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_email_key UNIQUE (email)
);

CREATE TABLE credentials (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    password_hash text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE refresh_tokens (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    family_id uuid NOT NULL,
    token_hash bytea NOT NULL CHECK (length(token_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT refresh_tokens_token_hash_key UNIQUE (token_hash)
);
CREATE INDEX refresh_tokens_user_id_idx ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_family_id_idx ON refresh_tokens (family_id);

CREATE TABLE chats (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    title text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chats_of_one_user UNIQUE (id, user_id)
);
CREATE INDEX chats_user_id_idx ON chats (user_id, id DESC);

CREATE TABLE turns (
    id uuid PRIMARY KEY,
    chat_id uuid NOT NULL,
    user_id uuid NOT NULL,
    user_message_id uuid NOT NULL,
    assistant_message_id uuid,
    status text NOT NULL DEFAULT 'queued' CHECK (status IN
        ('queued', 'running', 'awaiting_approval', 'completed', 'failed', 'cancelled')),
    active boolean NOT NULL,
    model text NOT NULL,
    prompt jsonb,
    error_code text,
    error_message text,
    idempotency_key text CHECK (length(idempotency_key) <= 255),
    request_hash bytea,
    cancel_requested_at timestamptz,
    input_tokens bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    cache_read_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_read_tokens >= 0),
    cache_write_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_tokens >= 0),
    cost_usd numeric(20, 10) NOT NULL DEFAULT 0 CHECK (cost_usd >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT turns_of_one_user UNIQUE (id, user_id),
    CONSTRAINT turns_in_own_chat
        FOREIGN KEY (chat_id, user_id) REFERENCES chats (id, user_id) ON DELETE CASCADE,
    CONSTRAINT turns_final_is_not_active
        CHECK (NOT active OR status NOT IN ('completed', 'failed', 'cancelled')),
    CONSTRAINT turns_idempotency_key_key UNIQUE (user_id, idempotency_key)
);
CREATE UNIQUE INDEX turns_one_active_in_a_chat ON turns (chat_id) WHERE active;
CREATE INDEX turns_chat_id_idx ON turns (chat_id, id);
CREATE INDEX turns_unfinished_idx ON turns (created_at)
    WHERE status NOT IN ('completed', 'failed', 'cancelled');

CREATE TABLE messages (
    id uuid PRIMARY KEY,
    chat_id uuid NOT NULL,
    user_id uuid NOT NULL,
    turn_id uuid NOT NULL,
    role text NOT NULL CHECK (role IN ('user', 'assistant')),
    content text NOT NULL,
    status text NOT NULL DEFAULT 'completed'
        CHECK (status IN ('completed', 'cancelled', 'failed')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT messages_one_of_each_role_in_a_turn UNIQUE (turn_id, role),
    CONSTRAINT messages_in_own_chat
        FOREIGN KEY (chat_id, user_id) REFERENCES chats (id, user_id) ON DELETE CASCADE,
    CONSTRAINT messages_in_own_turn
        FOREIGN KEY (turn_id, user_id) REFERENCES turns (id, user_id) ON DELETE CASCADE
);
CREATE INDEX messages_chat_id_idx ON messages (chat_id, turn_id, id);
CREATE INDEX messages_user_id_idx ON messages (user_id);

CREATE TABLE steps (
    turn_id uuid NOT NULL,
    step integer NOT NULL CHECK (step >= 1),
    user_id uuid NOT NULL,
    attempt integer NOT NULL CHECK (attempt >= 1),
    run_id text NOT NULL,
    activity_id text NOT NULL,
    activity_attempt integer NOT NULL,
    model text NOT NULL,
    status text NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
    text text NOT NULL DEFAULT '',
    blocks jsonb NOT NULL DEFAULT '[]',
    stop_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (turn_id, step),
    CONSTRAINT steps_in_own_turn
        FOREIGN KEY (turn_id, user_id) REFERENCES turns (id, user_id) ON DELETE CASCADE
);
CREATE INDEX steps_user_id_idx ON steps (user_id);

CREATE TABLE tool_calls (
    turn_id uuid NOT NULL,
    step integer NOT NULL,
    tool_call_id text NOT NULL,
    user_id uuid NOT NULL,
    position integer NOT NULL,
    name text NOT NULL,
    input jsonb NOT NULL,
    status text NOT NULL CHECK (status IN
        ('requested', 'awaiting_approval', 'running', 'completed', 'failed', 'denied')),
    output text,
    attempts integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (turn_id, step, tool_call_id),
    CONSTRAINT tool_calls_in_own_turn
        FOREIGN KEY (turn_id, user_id) REFERENCES turns (id, user_id) ON DELETE CASCADE,
    FOREIGN KEY (turn_id, step) REFERENCES steps (turn_id, step) ON DELETE CASCADE
);
CREATE INDEX tool_calls_user_id_idx ON tool_calls (user_id);

CREATE TABLE ledger (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    turn_id uuid NOT NULL,
    step integer NOT NULL,
    attempt integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('model', 'tool')),
    model text NOT NULL,
    status text NOT NULL
        CHECK (status IN ('open', 'settled', 'cancelled', 'failed', 'lost')),
    estimated boolean NOT NULL,
    input_tokens bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    cache_read_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_read_tokens >= 0),
    cache_write_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_tokens >= 0),
    cost_usd numeric(20, 10) NOT NULL DEFAULT 0 CHECK (cost_usd >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    CONSTRAINT ledger_attempt_key UNIQUE (turn_id, step, attempt, kind)
);
CREATE INDEX ledger_user_id_idx ON ledger (user_id, created_at);
"""

_READ_WRITE = "SELECT, INSERT, UPDATE, DELETE"


def upgrade() -> None:
    """Create all tables and policies."""
    op.execute(
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APPLICATION_ROLE}') "
        f"THEN CREATE ROLE {APPLICATION_ROLE} NOLOGIN; END IF; END $$"
    )
    op.execute(f"GRANT USAGE ON SCHEMA public TO {APPLICATION_ROLE}")
    for statement in statements(ACTOR_FUNCTIONS) + statements(_TABLES) + _security():
        op.execute(statement)


def downgrade() -> None:
    """Drop everything but the role, which may own grants in other databases of the cluster."""
    for table in (
        *("ledger", "tool_calls", "steps", "messages", "turns", "chats"),
        *("refresh_tokens", "credentials", "users"),
    ):
        op.execute(f"DROP TABLE {table}")
    for statement in statements(DROP_ACTOR_FUNCTIONS):
        op.execute(statement)
    op.execute(f"REVOKE USAGE ON SCHEMA public FROM {APPLICATION_ROLE}")


def _security() -> list[str]:
    """Users change their own conversations; only the service changes their accounts.

    No one may delete from the ledger: its rows go with their user, by the foreign key.
    """
    owned = ("chats", "turns", "messages", "steps", "tool_calls")
    return [
        *secure("users", grants=_READ_WRITE, owner_column="id", owner_commands="SELECT"),
        *hide("credentials", grants=_READ_WRITE),
        *hide("refresh_tokens", grants=_READ_WRITE),
        *(part for table in owned for part in secure(table, grants=_READ_WRITE)),
        *secure("ledger", grants="SELECT, INSERT, UPDATE"),
    ]
