"""Prompts with versions; administrators' settings of tools, and the tools that they add."""

from alembic import op

from schema.migrations.policies import IS_SIGNED_IN, administer, policy, statements

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE prompts (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    description text NOT NULL DEFAULT '' CHECK (length(description) <= 1000),
    latest_version integer NOT NULL DEFAULT 0 CHECK (latest_version >= 0),
    active_version integer,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT prompts_name_key UNIQUE (name)
);

CREATE TABLE prompt_versions (
    prompt_id uuid NOT NULL REFERENCES prompts ON DELETE CASCADE,
    number integer NOT NULL CHECK (number >= 1),
    content text NOT NULL CHECK (length(content) BETWEEN 1 AND 100000),
    note text NOT NULL DEFAULT '' CHECK (length(note) <= 1000),
    created_by uuid REFERENCES users ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (prompt_id, number)
);
CREATE INDEX prompt_versions_created_by_idx ON prompt_versions (created_by);
ALTER TABLE prompts ADD CONSTRAINT prompts_active_version_is_there
    FOREIGN KEY (id, active_version) REFERENCES prompt_versions (prompt_id, number)
    DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE prompt_activations (
    id uuid PRIMARY KEY,
    prompt_id uuid NOT NULL,
    number integer NOT NULL,
    activated_by uuid REFERENCES users ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (prompt_id, number) REFERENCES prompt_versions (prompt_id, number)
        ON DELETE CASCADE
);
CREATE INDEX prompt_activations_prompt_id_idx ON prompt_activations (prompt_id, id DESC);
CREATE INDEX prompt_activations_activated_by_idx ON prompt_activations (activated_by);

CREATE TABLE tool_settings (
    name text PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9_-]{1,64}$'),
    enabled boolean NOT NULL DEFAULT true,
    approval text CHECK (approval IN ('auto', 'ask', 'deny')),
    roles text[],
    version integer NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE mcp_servers (
    name text PRIMARY KEY CHECK (name ~ '^[a-zA-Z][a-zA-Z0-9-]{0,31}$'),
    transport text NOT NULL CHECK (transport IN ('stdio', 'http')),
    command text CHECK (length(command) <= 1000),
    args text[] NOT NULL DEFAULT '{}',
    url text CHECK (length(url) <= 2000),
    secrets bytea,
    secret_names text[] NOT NULL DEFAULT '{}',
    enabled boolean NOT NULL DEFAULT true,
    status text NOT NULL DEFAULT 'unknown' CHECK (status IN ('unknown', 'healthy', 'failing')),
    problem text CHECK (length(problem) <= 500),
    checked_at timestamptz,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT mcp_servers_one_transport CHECK (
        (transport = 'stdio' AND command IS NOT NULL AND url IS NULL)
        OR (transport = 'http' AND url IS NOT NULL AND command IS NULL AND args = '{}'))
);

CREATE TABLE mcp_tools (
    server text NOT NULL REFERENCES mcp_servers ON DELETE CASCADE,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    description text NOT NULL DEFAULT '',
    input_schema jsonb NOT NULL,
    listed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, name)
);

CREATE TABLE workflow_tools (
    name text PRIMARY KEY CHECK (name ~ '^[a-zA-Z][a-zA-Z0-9_-]{0,62}$'),
    description text NOT NULL CHECK (length(description) BETWEEN 1 AND 2000),
    url text NOT NULL CHECK (length(url) <= 2000),
    input_schema jsonb NOT NULL,
    secret bytea NOT NULL,
    timeout_s double precision NOT NULL DEFAULT 30 CHECK (timeout_s > 0 AND timeout_s <= 86400),
    retry_class text NOT NULL DEFAULT 'keyed'
        CHECK (retry_class IN ('idempotent', 'keyed', 'never')),
    approval text NOT NULL DEFAULT 'auto' CHECK (approval IN ('auto', 'ask', 'deny')),
    enabled boolean NOT NULL DEFAULT true,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
"""

_READ_WRITE = "SELECT, INSERT, UPDATE, DELETE"
_READ_APPEND = "SELECT, INSERT"


def upgrade() -> None:
    """Create everything."""
    for statement in statements(_TABLES) + _security():
        op.execute(statement)
    op.execute(
        "CREATE TRIGGER prompt_versions_immutable BEFORE UPDATE ON prompt_versions "
        "FOR EACH ROW WHEN (NEW.content IS DISTINCT FROM OLD.content "
        "OR NEW.number IS DISTINCT FROM OLD.number) "
        "EXECUTE FUNCTION everturn_refuse_change()"
    )


def downgrade() -> None:
    """Drop everything."""
    op.execute("ALTER TABLE prompts DROP CONSTRAINT prompts_active_version_is_there")
    for table in (
        *("workflow_tools", "mcp_tools", "mcp_servers", "tool_settings"),
        *("prompt_activations", "prompt_versions", "prompts"),
    ):
        op.execute(f"DROP TABLE {table}")


def _security() -> list[str]:
    """Secrets of tools are encrypted, and still only for administrators and the service."""
    return [
        *administer("prompts", grants=_READ_WRITE, readable=False),
        # A turn reads as its user which version is active; the text is for the service.
        policy("prompts", "reader", "SELECT", f"{IS_SIGNED_IN} AND name = 'base'"),
        *administer("prompt_versions", grants=_READ_APPEND, readable=False),
        *administer("prompt_activations", grants=_READ_APPEND, readable=False),
        *administer("tool_settings", grants=_READ_WRITE, readable=True),
        *administer("mcp_servers", grants=_READ_WRITE, readable=False),
        *administer("mcp_tools", grants=_READ_WRITE, readable=True),
        *administer("workflow_tools", grants=_READ_WRITE, readable=False),
    ]
