"""Budgets, reservations in the ledger, and charges added up by day."""

from alembic import op

from schema.migrations.policies import (
    ACT_AS_CALLER,
    ACT_AS_SERVICE,
    administer,
    owns,
    policy,
    secure,
    statements,
)

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# What an open row counts is what it has cost so far, or what it reserves if that is more; a closed
# one counts its cost. Tokens are added up as numbers, since four columns of them could overflow.
_LEDGER = """
ALTER TABLE ledger
    ADD COLUMN api_key_id uuid,
    ADD COLUMN reserved_usd numeric(20, 10) NOT NULL DEFAULT 0 CHECK (reserved_usd >= 0),
    ADD COLUMN reserved_tokens bigint NOT NULL DEFAULT 0 CHECK (reserved_tokens >= 0),
    ADD COLUMN charged_usd numeric(20, 10) NOT NULL GENERATED ALWAYS AS (
        CASE status WHEN 'open' THEN greatest(cost_usd, reserved_usd) ELSE cost_usd END
    ) STORED,
    ADD COLUMN charged_tokens numeric(24) NOT NULL GENERATED ALWAYS AS (
        greatest(
            input_tokens::numeric + output_tokens + cache_read_tokens + cache_write_tokens,
            CASE status WHEN 'open' THEN reserved_tokens ELSE 0 END
        )
    ) STORED;
CREATE INDEX ledger_api_key_id_idx ON ledger (api_key_id, created_at)
    WHERE api_key_id IS NOT NULL;
"""

# The key whose requests count towards its own budget. The ledger keeps it without a reference: its
# rows outlive everything but their user.
_TURNS = """
ALTER TABLE api_keys ADD CONSTRAINT api_keys_of_one_user UNIQUE (id, user_id);
ALTER TABLE turns
    ADD COLUMN api_key_id uuid,
    ADD CONSTRAINT turns_by_own_key FOREIGN KEY (api_key_id, user_id)
        REFERENCES api_keys (id, user_id) ON DELETE SET NULL (api_key_id);
CREATE INDEX turns_api_key_id_idx ON turns (api_key_id) WHERE api_key_id IS NOT NULL;
"""

_NOBODY = "'00000000-0000-0000-0000-000000000000'::uuid"

_SCOPES = f"""
    scope text NOT NULL CHECK (scope IN ('user', 'api_key', 'installation')),
    subject_id uuid NOT NULL,
    user_id uuid REFERENCES users ON DELETE CASCADE,
    CHECK (CASE scope WHEN 'user' THEN user_id IS NOT NULL AND user_id = subject_id
                      WHEN 'api_key' THEN user_id IS NOT NULL
                      ELSE user_id IS NULL AND subject_id = {_NOBODY} END)
"""

_TABLES = f"""
CREATE TABLE budgets (
    {_SCOPES},
    api_key_id uuid GENERATED ALWAYS AS
        (CASE scope WHEN 'api_key' THEN subject_id END) STORED,
    budget_usd numeric(20, 10) CHECK (budget_usd >= 0),
    daily_budget_usd numeric(20, 10) CHECK (daily_budget_usd >= 0),
    budget_tokens bigint CHECK (budget_tokens >= 0),
    daily_budget_tokens bigint CHECK (daily_budget_tokens >= 0),
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, subject_id),
    CONSTRAINT budgets_of_own_keys FOREIGN KEY (api_key_id, user_id)
        REFERENCES api_keys (id, user_id) ON DELETE CASCADE
);
CREATE INDEX budgets_user_id_idx ON budgets (user_id);
CREATE INDEX budgets_api_key_id_idx ON budgets (api_key_id) WHERE api_key_id IS NOT NULL;

CREATE TABLE usage_days (
    {_SCOPES},
    day date NOT NULL,
    charged_usd numeric(30, 10) NOT NULL DEFAULT 0,
    charged_tokens numeric(30) NOT NULL DEFAULT 0,
    settled_usd numeric(30, 10) NOT NULL DEFAULT 0,
    settled_tokens numeric(30) NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, subject_id, day)
);
CREATE INDEX usage_days_user_id_idx ON usage_days (user_id);
"""

# The functions act as the service: users may read their days and write none of them.
_ADD_TO_DAY = f"""
CREATE FUNCTION everturn_add_to_day(
    of_scope text, subject uuid, owner uuid, at timestamptz,
    usd numeric, tokens numeric, final_usd numeric, final_tokens numeric
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    INSERT INTO usage_days AS days (scope, subject_id, user_id, day, charged_usd, charged_tokens,
                                    settled_usd, settled_tokens)
    VALUES (of_scope, subject, owner, (at AT TIME ZONE 'UTC')::date, usd, tokens, final_usd,
            final_tokens)
    ON CONFLICT (scope, subject_id, day) DO UPDATE SET
        charged_usd = days.charged_usd + excluded.charged_usd,
        charged_tokens = days.charged_tokens + excluded.charged_tokens,
        settled_usd = days.settled_usd + excluded.settled_usd,
        settled_tokens = days.settled_tokens + excluded.settled_tokens;
    {ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- constants

# Always in this order: two transactions that wait for each other's day would be one too many.
_COUNT_CHARGE = f"""
CREATE FUNCTION everturn_count_charge() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
    usd numeric := NEW.charged_usd;
    tokens numeric := NEW.charged_tokens;
    final_usd numeric := CASE NEW.status WHEN 'open' THEN 0 ELSE NEW.charged_usd END;
    final_tokens numeric := CASE NEW.status WHEN 'open' THEN 0 ELSE NEW.charged_tokens END;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        usd := usd - OLD.charged_usd;
        tokens := tokens - OLD.charged_tokens;
        IF OLD.status <> 'open' THEN
            final_usd := final_usd - OLD.charged_usd;
            final_tokens := final_tokens - OLD.charged_tokens;
        END IF;
    END IF;
    PERFORM everturn_add_to_day('user', NEW.user_id, NEW.user_id, NEW.created_at,
                                usd, tokens, final_usd, final_tokens);
    IF NEW.api_key_id IS NOT NULL THEN
        PERFORM everturn_add_to_day('api_key', NEW.api_key_id, NEW.user_id, NEW.created_at,
                                    usd, tokens, final_usd, final_tokens);
    END IF;
    IF EXISTS (SELECT FROM budgets WHERE scope = 'installation') THEN
        PERFORM everturn_add_to_day('installation', '00000000-0000-0000-0000-000000000000', NULL,
                                    NEW.created_at, usd, tokens, final_usd, final_tokens);
    END IF;
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""

# What a deleted user's running call reserved counts as spent: its cost will never be known.
_KEEP_CHARGE = f"""
CREATE FUNCTION everturn_keep_charge() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    UPDATE usage_days SET settled_usd = settled_usd + OLD.charged_usd,
                          settled_tokens = settled_tokens + OLD.charged_tokens
    WHERE scope = 'installation' AND day = (OLD.created_at AT TIME ZONE 'UTC')::date;
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""  # noqa: S608 -- constants

# The lock waits for all who write to the ledger and keeps others out until the commit: those before
# are seen here, those after see that there is a budget. The installation's months are the
# calendar's.
_SEED_INSTALLATION = f"""
CREATE FUNCTION everturn_seed_installation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    LOCK TABLE ledger IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM usage_days WHERE scope = 'installation';
    INSERT INTO usage_days
        (scope, subject_id, day, charged_usd, charged_tokens, settled_usd, settled_tokens)
    SELECT 'installation', '00000000-0000-0000-0000-000000000000', day, sum(charged_usd),
           sum(charged_tokens), sum(settled_usd), sum(settled_tokens)
    FROM usage_days
    WHERE scope = 'user' AND day >= date_trunc('month', now() AT TIME ZONE 'UTC')::date
    GROUP BY day;
    {ACT_AS_CALLER}
    RETURN NULL;
END $$
"""  # noqa: S608 -- constants

# Deferred: the days stay unlocked until the commit. A condition is checked at once, so that what
# changes no charge, such as a checkpoint within the reservation, costs nothing.
_TRIGGERS = """
CREATE CONSTRAINT TRIGGER ledger_charge_added AFTER INSERT ON ledger
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION everturn_count_charge();
CREATE CONSTRAINT TRIGGER ledger_charge_changed AFTER UPDATE ON ledger
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.charged_usd <> OLD.charged_usd OR NEW.charged_tokens <> OLD.charged_tokens
          OR (NEW.status = 'open') <> (OLD.status = 'open'))
    EXECUTE FUNCTION everturn_count_charge();
CREATE CONSTRAINT TRIGGER ledger_charge_kept AFTER DELETE ON ledger
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.status = 'open')
    EXECUTE FUNCTION everturn_keep_charge();
CREATE TRIGGER budgets_seed_installation AFTER INSERT ON budgets
    FOR EACH ROW WHEN (NEW.scope = 'installation') EXECUTE FUNCTION everturn_seed_installation();
"""

_SEED_USERS = """
INSERT INTO usage_days (scope, subject_id, user_id, day, charged_usd, charged_tokens, settled_usd,
                        settled_tokens)
SELECT 'user', user_id, user_id, (created_at AT TIME ZONE 'UTC')::date, sum(charged_usd),
       sum(charged_tokens), coalesce(sum(charged_usd) FILTER (WHERE status <> 'open'), 0),
       coalesce(sum(charged_tokens) FILTER (WHERE status <> 'open'), 0)
FROM ledger GROUP BY user_id, (created_at AT TIME ZONE 'UTC')::date
"""


_DOWN = """
DROP TRIGGER budgets_seed_installation ON budgets;
DROP TRIGGER ledger_charge_kept ON ledger;
DROP TRIGGER ledger_charge_changed ON ledger;
DROP TRIGGER ledger_charge_added ON ledger;
DROP FUNCTION everturn_seed_installation();
DROP FUNCTION everturn_keep_charge();
DROP FUNCTION everturn_count_charge();
DROP FUNCTION everturn_add_to_day;
DROP TABLE usage_days;
DROP TABLE budgets;
ALTER TABLE turns DROP COLUMN api_key_id;
ALTER TABLE api_keys DROP CONSTRAINT api_keys_of_one_user;
ALTER TABLE ledger
    DROP COLUMN charged_tokens,
    DROP COLUMN charged_usd,
    DROP COLUMN reserved_tokens,
    DROP COLUMN reserved_usd,
    DROP COLUMN api_key_id;
"""

_EVERYTHING = "SELECT, INSERT, UPDATE, DELETE"


def upgrade() -> None:
    """Add them; the days begin with what the ledger has."""
    for statement in (*statements(_LEDGER), *statements(_TURNS), *statements(_TABLES)):
        op.execute(statement)
    # Forced policies hide all rows from an owner without an actor.
    _unforced("ledger", _SEED_USERS)
    for statement in (
        *(_ADD_TO_DAY, _COUNT_CHARGE, _KEEP_CHARGE, _SEED_INSTALLATION),
        *statements(_TRIGGERS),
        *secure("usage_days", grants=_EVERYTHING, owner_commands="SELECT"),
        *administer("budgets", grants=_EVERYTHING, readable=False),
        policy("budgets", "owner", "SELECT", owns()),
        policy("budgets", "key_owner", "ALL", f"{owns()} AND scope = 'api_key'"),
    ):
        op.execute(statement)


def downgrade() -> None:
    """Remove them; the ledger and its costs stay."""
    for statement in statements(_DOWN):
        op.execute(statement)


def _unforced(table: str, statement: str) -> None:
    op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(statement)
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
