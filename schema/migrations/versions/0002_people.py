"""Plans, preferences, API keys, external identities, the audit log; versions for If-Match."""

from alembic import op

from schema.migrations.policies import (
    APPLICATION_ROLE,
    IS_ADMIN,
    administer,
    hide,
    owns,
    policy,
    secure,
    statements,
)

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE users ADD COLUMN version integer NOT NULL DEFAULT 1;
ALTER TABLE users ALTER COLUMN email DROP NOT NULL;
CREATE INDEX users_admins_idx ON users (id) WHERE role = 'admin' AND status = 'active';

CREATE TABLE preferences (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    language text CHECK (length(language) <= 35),
    time_zone text CHECK (length(time_zone) <= 64),
    instructions text CHECK (length(instructions) <= 4000),
    default_model text CHECK (length(default_model) <= 100),
    use_memories boolean NOT NULL DEFAULT true,
    use_knowledge boolean NOT NULL DEFAULT true,
    auto_accept_memories boolean NOT NULL DEFAULT false,
    disabled_tools text[] NOT NULL DEFAULT '{}',
    version integer NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE identities (
    issuer text NOT NULL CHECK (length(issuer) <= 500),
    subject text NOT NULL CHECK (length(subject) <= 255),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_user_id_idx ON identities (user_id);

CREATE TABLE closed_identities (
    identity_hash bytea PRIMARY KEY CHECK (length(identity_hash) = 32),
    closed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX closed_identities_closed_at_idx ON closed_identities (closed_at);

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    start text NOT NULL,
    key_hash bytea NOT NULL CHECK (length(key_hash) = 32),
    permissions text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash)
);
CREATE INDEX api_keys_user_id_idx ON api_keys (user_id, id);

CREATE TABLE plans (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    description text NOT NULL DEFAULT '' CHECK (length(description) <= 1000),
    entitlements jsonb NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    active boolean NOT NULL DEFAULT true,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT plans_name_key UNIQUE (name),
    CONSTRAINT plans_default_is_active CHECK (active OR NOT is_default)
);
CREATE UNIQUE INDEX plans_one_default ON plans (is_default) WHERE is_default;
INSERT INTO plans (id, name, description, entitlements, is_default) VALUES
    ('01900000-0000-7000-8000-000000000001', 'Standard',
     'What everybody has who was given no other plan.', '{}', true);

CREATE TABLE subscriptions (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    plan_id uuid NOT NULL REFERENCES plans ON DELETE RESTRICT,
    started_at timestamptz NOT NULL DEFAULT now(),
    version integer NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX subscriptions_plan_id_idx ON subscriptions (plan_id);

CREATE TABLE creations (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash bytea NOT NULL CHECK (length(request_hash) = 32),
    resource_id text NOT NULL CHECK (length(resource_id) <= 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX creations_created_at_idx ON creations (created_at);

CREATE TABLE audit_log (
    id uuid PRIMARY KEY,
    actor_type text NOT NULL CHECK (actor_type IN ('anonymous', 'user', 'admin', 'service')),
    actor_id uuid NOT NULL,
    action text NOT NULL CHECK (length(action) <= 100),
    resource_type text NOT NULL CHECK (length(resource_type) <= 50),
    resource_id text CHECK (length(resource_id) <= 200),
    subject_id uuid,
    request_id text CHECK (length(request_id) <= 200),
    address inet,
    details jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_log_actor_id_idx ON audit_log (actor_id, id DESC);
CREATE INDEX audit_log_subject_id_idx ON audit_log (subject_id, id DESC);
CREATE INDEX audit_log_action_idx ON audit_log (action, id DESC);
CREATE INDEX audit_log_resource_idx ON audit_log (resource_type, resource_id, id DESC);
CREATE INDEX audit_log_request_id_idx ON audit_log (request_id);

CREATE TABLE alerts (
    id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (length(kind) <= 100),
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    user_id uuid REFERENCES users ON DELETE CASCADE,
    resource_type text CHECK (length(resource_type) <= 50),
    resource_id text CHECK (length(resource_id) <= 200),
    details jsonb NOT NULL DEFAULT '{}',
    dedup_key text CHECK (length(dedup_key) <= 255),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT alerts_dedup_key_key UNIQUE (dedup_key)
);
CREATE INDEX alerts_kind_idx ON alerts (kind, id DESC);
CREATE INDEX alerts_user_id_idx ON alerts (user_id, id DESC);
"""

# Grants keep the application from changing the log; triggers keep all other roles from it.
_APPEND_ONLY = """
CREATE FUNCTION everturn_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$
"""
_APPEND_ONLY_TRIGGERS = """
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION everturn_refuse_change();
CREATE TRIGGER audit_log_never_emptied BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION everturn_refuse_change();
"""

# Only the role that migrates reads or writes the version of the schema.
_VERSION_TABLE = (
    "ALTER TABLE alembic_version ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE alembic_version FORCE ROW LEVEL SECURITY",
    "CREATE POLICY alembic_version_owner ON alembic_version TO CURRENT_USER USING (true)",
)

_READ_WRITE = "SELECT, INSERT, UPDATE, DELETE"


def upgrade() -> None:
    """Create everything."""
    for statement in statements(_TABLES) + _security():
        op.execute(statement)
    op.execute(_APPEND_ONLY)
    for statement in (*statements(_APPEND_ONLY_TRIGGERS), *_VERSION_TABLE):
        op.execute(statement)


def downgrade() -> None:
    """Drop everything, the audit log included."""
    op.execute("DROP POLICY alembic_version_owner ON alembic_version")
    op.execute("ALTER TABLE alembic_version NO FORCE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE alembic_version DISABLE ROW LEVEL SECURITY")
    for table in (
        *("alerts", "audit_log", "creations", "subscriptions", "plans"),
        *("api_keys", "closed_identities", "identities", "preferences"),
    ):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION everturn_refuse_change()")
    op.execute("DROP POLICY users_administrator_change ON users")
    op.execute("DROP INDEX users_admins_idx")
    op.execute("ALTER TABLE users DROP COLUMN version")
    # Before, every user had an address; no one can sign in with this one. Forced policies would
    # hide the rows from their owner.
    op.execute("ALTER TABLE users NO FORCE ROW LEVEL SECURITY")
    op.execute("UPDATE users SET email = id || '@unknown.invalid' WHERE email IS NULL")
    op.execute("ALTER TABLE users FORCE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE users ALTER COLUMN email SET NOT NULL")


def _security() -> list[str]:
    """Set who may do what. Credentials are for the service only, although they are hashed."""
    # In the log an actor can only write as itself.
    speaks_for_itself = f"{owns('actor_id')} AND actor_type = (SELECT everturn_actor_type())"
    return [
        policy("users", "administrator_change", "UPDATE", IS_ADMIN),
        *secure("preferences", grants=_READ_WRITE),
        *secure("creations", grants=_READ_WRITE),
        *hide("identities", grants=_READ_WRITE),
        *hide("closed_identities", grants=_READ_WRITE),
        *hide("api_keys", grants=_READ_WRITE),
        *administer("plans", grants=_READ_WRITE, readable=True),
        *secure("subscriptions", grants=_READ_WRITE, owner_commands="SELECT"),
        policy("subscriptions", "administrator_change", "ALL", IS_ADMIN),
        *secure(
            "audit_log",
            grants="SELECT, INSERT",
            owner_column="actor_id",
            owner_commands="SELECT",
        ),
        policy("audit_log", "writer", "INSERT", speaks_for_itself),
        *administer("alerts", grants=_READ_WRITE, readable=False),
        f"REVOKE ALL ON alembic_version FROM {APPLICATION_ROLE}",
    ]
