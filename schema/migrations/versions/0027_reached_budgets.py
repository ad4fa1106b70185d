"""Alerts of budgets that reach 50, 80 or 100 %, raised where a charge is settled."""

from alembic import op

from schema.migrations.policies import ACT_AS_CALLER, ACT_AS_SERVICE

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# UUIDv7, as everywhere; Postgres has a function for it only since version 18.
_ALERT_ID = """
CREATE FUNCTION everturn_new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
SELECT encode(set_bit(set_bit(overlay(
    uuid_send(gen_random_uuid())
    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
    FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$
"""

# Where nothing is limited, nothing is added up.
_IS_LIMITED = f"""
CREATE FUNCTION everturn_is_limited(of_user uuid, of_key uuid) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    {ACT_AS_SERVICE}
    answer boolean;
BEGIN
    answer := EXISTS (
        SELECT FROM budgets
        WHERE (scope, subject_id) IN (('user', of_user), ('api_key', of_key),
                                      ('installation', '00000000-0000-0000-0000-000000000000'))
          AND num_nonnulls(budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens) > 0
    ) OR EXISTS (
        SELECT FROM plans
        WHERE id = coalesce((SELECT plan_id FROM subscriptions WHERE user_id = of_user),
                            (SELECT id FROM plans WHERE is_default))
          AND num_nonnulls(entitlements->>'budgetUsd', entitlements->>'dailyBudgetUsd',
                           entitlements->>'budgetTokens', entitlements->>'dailyBudgetTokens') > 0
    );
    {ACT_AS_CALLER}
    RETURN answer;
END $$
"""  # noqa: S608 -- constants

# Raises what was not raised before, and returns it: of every budget that applies each threshold
# that it has reached or, where a call was refused, the last one of the budget that refused it. The
# limit is part of the key, so a budget that is changed is another one. The order of keys is that
# of locks. A user who is being deleted is skipped: to wait for that would be a deadlock.
_REACH = f"""
CREATE FUNCTION everturn_reach_budgets(
    of_user uuid, of_key uuid, of_turn uuid, refused_scope text DEFAULT NULL,
    refused_unit text DEFAULT NULL, refused_period text DEFAULT NULL
) RETURNS SETOF alerts LANGUAGE plpgsql
SET timezone = 'UTC' AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    RETURN QUERY
    WITH reached AS (
        SELECT budget.*, threshold, severity, key,
               CASE scope WHEN 'api_key' THEN of_user WHEN 'user' THEN of_user END AS user_id,
               CASE scope WHEN 'installation' THEN NULL ELSE scope END AS resource_type,
               CASE scope WHEN 'installation' THEN NULL ELSE subject_id::text END AS resource_id
        FROM (SELECT id FROM users WHERE id = of_user FOR KEY SHARE SKIP LOCKED)
             AS still_there
        CROSS JOIN everturn_budgets(of_user, of_key) AS budget
        CROSS JOIN (VALUES (50, 'info'), (80, 'warning'), (100, 'critical'))
            AS step (threshold, severity)
        CROSS JOIN LATERAL (
            SELECT concat_ws(':', 'budget', scope, subject_id, unit, period,
                             extract(epoch FROM starts_at)::bigint, trim_scale(allowed),
                             lpad(threshold::text, 3, '0')) AS key
        ) AS named
        WHERE CASE WHEN refused_scope IS NULL
              THEN settled * 100 >= allowed * threshold AND (allowed > 0 OR threshold = 100)
              ELSE threshold = 100 AND scope = refused_scope AND unit = refused_unit
                   AND period = refused_period END
          AND NOT EXISTS (SELECT FROM alerts AS earlier WHERE earlier.dedup_key = key)
    ), raised AS (
        INSERT INTO alerts (id, kind, severity, user_id, resource_type, resource_id, dedup_key,
                            unreported_in, details)
        SELECT everturn_new_id(), 'budget.reached', severity, user_id, resource_type,
               resource_id, key, of_turn, jsonb_build_object(
                   'scope', scope, 'unit', unit, 'window', period, 'threshold', threshold,
                   'limit', CASE unit WHEN 'usd' THEN to_jsonb(trim_scale(allowed)::text)
                                      ELSE to_jsonb(allowed) END,
                   'used', CASE unit WHEN 'usd' THEN to_jsonb(trim_scale(settled)::text)
                                     ELSE to_jsonb(settled) END,
                   'resetsAt', to_char(resets_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
        FROM reached ORDER BY key
        ON CONFLICT (dedup_key) DO NOTHING
        RETURNING *
    ), recorded AS (
        INSERT INTO audit_log (id, actor_type, actor_id, action, resource_type, resource_id,
                               subject_id, details)
        SELECT everturn_new_id(), 'service', '00000000-0000-0000-0000-000000000000',
               'budget.reached', coalesce(raised.resource_type, 'installation'),
               raised.resource_id, raised.user_id, raised.details
        FROM raised
    )
    SELECT * FROM raised ORDER BY dedup_key;
    {ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- constants

_REACH_BY_CHARGE = """
CREATE FUNCTION everturn_reach_by_charge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF everturn_is_limited(NEW.user_id, NEW.api_key_id) THEN
        PERFORM everturn_reach_budgets(NEW.user_id, NEW.api_key_id, NEW.turn_id);
    END IF;
    RETURN NULL;
END $$
"""

# Deferred, and behind `ledger_charge_…` by its name: the days have been added up by then, and are
# locked, so that of two transactions which cross a threshold together the second one sees it.
_TRIGGERS = (
    """
    CREATE CONSTRAINT TRIGGER ledger_reaches_by_insert AFTER INSERT ON ledger
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (NEW.status <> 'open') EXECUTE FUNCTION everturn_reach_by_charge()
    """,
    """
    CREATE CONSTRAINT TRIGGER ledger_reaches_by_update AFTER UPDATE ON ledger
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (NEW.status <> 'open'
              AND (OLD.status = 'open' OR NEW.charged_usd <> OLD.charged_usd
                   OR NEW.charged_tokens <> OLD.charged_tokens))
        EXECUTE FUNCTION everturn_reach_by_charge()
    """,
)

# What has been raised in a turn, and not been reported there yet. Constraints are checked at once,
# so that the calls of this transaction count, too.
_TAKE_NOTICES = f"""
CREATE FUNCTION everturn_take_notices(of_turn uuid) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$
DECLARE
    {ACT_AS_SERVICE}
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;
    RETURN QUERY
    WITH taken AS (
        UPDATE alerts SET unreported_in = NULL WHERE unreported_in = of_turn
        RETURNING details, dedup_key
    )
    SELECT details FROM taken ORDER BY dedup_key;
    {ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- constants

_COLUMN = (
    "ALTER TABLE alerts ADD COLUMN unreported_in uuid",
    "CREATE INDEX alerts_unreported_idx ON alerts (unreported_in) WHERE unreported_in IS NOT NULL",
)

_DOWN = (
    "DROP TRIGGER ledger_reaches_by_update ON ledger",
    "DROP TRIGGER ledger_reaches_by_insert ON ledger",
    "DROP FUNCTION everturn_take_notices(uuid)",
    "DROP FUNCTION everturn_reach_by_charge()",
    "DROP FUNCTION everturn_reach_budgets(uuid, uuid, uuid, text, text, text)",
    "DROP FUNCTION everturn_is_limited(uuid, uuid)",
    "DROP FUNCTION everturn_new_id()",
    "ALTER TABLE alerts DROP COLUMN unreported_in",
)


def upgrade() -> None:
    """Create the functions and triggers."""
    for statement in (
        *(*_COLUMN, _ALERT_ID, _IS_LIMITED, _REACH, _REACH_BY_CHARGE, _TAKE_NOTICES),
        *_TRIGGERS,
    ):
        op.execute(statement)


def downgrade() -> None:
    """Drop them; the alerts stay."""
    for statement in _DOWN:
        op.execute(statement)
