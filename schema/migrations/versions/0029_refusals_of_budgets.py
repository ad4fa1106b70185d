"""Alerts of budgets say whether calls have used them up, or one was refused for too little left."""

from alembic import op

from schema.migrations.policies import ACT_AS_CALLER, ACT_AS_SERVICE

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# A refusal has a key of its own, so that the alert of a budget that is used up indeed still comes
# after it. Once that has come, refusals are no news.
_REACH = f"""
CREATE OR REPLACE FUNCTION everturn_reach_budgets(
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
                             lpad(threshold::text, 3, '0')) AS spent_key
        ) AS named
        CROSS JOIN LATERAL (
            SELECT CASE WHEN refused_scope IS NULL THEN spent_key
                        ELSE concat_ws(':', spent_key, 'refused') END AS key
        ) AS told
        WHERE CASE WHEN refused_scope IS NULL
              THEN settled * 100 >= allowed * threshold AND (allowed > 0 OR threshold = 100)
              ELSE threshold = 100 AND scope = refused_scope AND unit = refused_unit
                   AND period = refused_period END
          AND NOT EXISTS (SELECT FROM alerts AS earlier WHERE earlier.dedup_key IN (spent_key, key))
    ), raised AS (
        INSERT INTO alerts (id, kind, severity, user_id, resource_type, resource_id, dedup_key,
                            unreported_in, details)
        SELECT everturn_new_id(), 'budget.reached', severity, user_id, resource_type,
               resource_id, key, of_turn, jsonb_build_object(
                   'scope', scope, 'unit', unit, 'window', period, 'threshold', threshold,
                   'reason', CASE WHEN refused_scope IS NULL THEN 'spent' ELSE 'refused' END,
                   'usedPercent', CASE allowed WHEN 0 THEN 100
                                               ELSE floor(settled * 100 / allowed) END,
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

_REACH_WITHOUT_REASON = f"""
CREATE OR REPLACE FUNCTION everturn_reach_budgets(
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


def upgrade() -> None:
    """Replace the function."""
    op.execute(_REACH)


def downgrade() -> None:
    """Bring its earlier form back."""
    op.execute(_REACH_WITHOUT_REASON)
