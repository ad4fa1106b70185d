"""Execution of tools: approvals, later answers, costs, and trials by administrators."""

from alembic import op

from schema.migrations.policies import administer, secure, statements

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_CHANGES = """
ALTER TABLE tool_calls
    ADD COLUMN approval text NOT NULL DEFAULT 'auto' CHECK (approval IN ('auto', 'ask')),
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN decision text CHECK (decision IN ('approved', 'denied', 'expired')),
    ADD COLUMN decision_reason text CHECK (length(decision_reason) <= 2000),
    ADD COLUMN edited_input jsonb,
    ADD COLUMN decided_at timestamptz,
    ADD COLUMN sent_at timestamptz,
    ADD COLUMN callback_id uuid,
    ADD COLUMN callback_until timestamptz,
    ADD COLUMN blocks jsonb,
    ADD COLUMN cost_usd numeric(20, 10) NOT NULL DEFAULT 0 CHECK (cost_usd >= 0),
    ADD CONSTRAINT tool_calls_callback_id_key UNIQUE (callback_id),
    ADD CONSTRAINT tool_calls_decided_once CHECK ((decision IS NULL) = (decided_at IS NULL));
CREATE INDEX tool_calls_decided_idx ON tool_calls (decided_at)
    WHERE status = 'awaiting_approval';
CREATE INDEX tool_calls_answered_idx ON tool_calls (finished_at)
    WHERE callback_id IS NOT NULL;

CREATE TABLE chat_tool_approvals (
    chat_id uuid NOT NULL,
    user_id uuid NOT NULL,
    tool text NOT NULL CHECK (length(tool) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chat_id, tool),
    FOREIGN KEY (chat_id, user_id) REFERENCES chats (id, user_id) ON DELETE CASCADE
);
CREATE INDEX chat_tool_approvals_user_id_idx ON chat_tool_approvals (user_id);

CREATE TABLE tool_tests (
    id uuid PRIMARY KEY,
    tool text NOT NULL CHECK (length(tool) BETWEEN 1 AND 200),
    input jsonb NOT NULL,
    output text,
    is_error boolean,
    duration_ms integer CHECK (duration_ms >= 0),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tool_tests_user_id_idx ON tool_tests (user_id);
CREATE INDEX tool_tests_created_at_idx ON tool_tests (created_at);

ALTER TABLE tool_settings
    ADD COLUMN retry_class text CHECK (retry_class IN ('idempotent', 'keyed', 'never')),
    ADD COLUMN timeout_s double precision CHECK (timeout_s > 0 AND timeout_s <= 86400),
    ADD COLUMN cost_usd numeric(20, 10) CHECK (cost_usd >= 0);

ALTER TABLE mcp_servers
    ADD COLUMN oauth jsonb,
    ADD COLUMN oauth_secret bytea;

ALTER TABLE mcp_tools
    ADD COLUMN retry_class text NOT NULL DEFAULT 'never'
        CHECK (retry_class IN ('idempotent', 'keyed', 'never'));

ALTER TABLE preferences
    ADD COLUMN tool_approvals jsonb NOT NULL DEFAULT '{}';

ALTER TABLE ledger
    ADD COLUMN tool_call_id text NOT NULL DEFAULT '',
    DROP CONSTRAINT ledger_attempt_key,
    ADD CONSTRAINT ledger_attempt_key UNIQUE (turn_id, step, attempt, kind, tool_call_id);
"""

_TAKEN_BACK = """
DELETE FROM ledger WHERE kind = 'tool';
ALTER TABLE ledger
    DROP CONSTRAINT ledger_attempt_key,
    ADD CONSTRAINT ledger_attempt_key UNIQUE (turn_id, step, attempt, kind),
    DROP COLUMN tool_call_id;
ALTER TABLE preferences DROP COLUMN tool_approvals;
ALTER TABLE mcp_tools DROP COLUMN retry_class;
ALTER TABLE mcp_servers DROP COLUMN oauth, DROP COLUMN oauth_secret;
ALTER TABLE tool_settings
    DROP COLUMN retry_class, DROP COLUMN timeout_s, DROP COLUMN cost_usd;
DROP TABLE tool_tests;
DROP TABLE chat_tool_approvals;
DROP INDEX tool_calls_decided_idx;
DROP INDEX tool_calls_answered_idx;
ALTER TABLE tool_calls
    DROP CONSTRAINT tool_calls_decided_once,
    DROP COLUMN approval, DROP COLUMN expires_at, DROP COLUMN decision,
    DROP COLUMN decision_reason, DROP COLUMN edited_input, DROP COLUMN decided_at,
    DROP COLUMN sent_at, DROP COLUMN callback_id, DROP COLUMN callback_until,
    DROP COLUMN blocks, DROP COLUMN cost_usd;
"""


def upgrade() -> None:
    """Add tables, columns and policies."""
    for statement in statements(_CHANGES) + _security():
        op.execute(statement)


def downgrade() -> None:
    """Remove them; the costs of tools are lost, because the old ledger's key can't hold them."""
    for statement in statements(_TAKEN_BACK):
        op.execute(statement)


def _security() -> list[str]:
    """Workers run trials as the service."""
    everything = "SELECT, INSERT, UPDATE, DELETE"
    return [
        *secure("chat_tool_approvals", grants=everything),
        *administer("tool_tests", grants=everything, readable=False),
    ]
