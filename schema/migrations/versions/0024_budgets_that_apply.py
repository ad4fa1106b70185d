"""A function that returns the budgets that apply to a user's request, and what they have left."""

from alembic import op

from schema.migrations.policies import ACT_AS_CALLER, ACT_AS_SERVICE

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# It acts as the service, because users may not read the installation's budget. Sums are added up
# only for limits that there are. The month of a subscription begins on the day and at the time of
# its start, or on the last day of a shorter month, as in services/subscriptions/periods.py; what
# the ledger has of its first day before that time is no part of it.
_BUDGETS = f"""
CREATE FUNCTION everturn_budgets(of_user uuid, of_key uuid)
RETURNS TABLE (scope text, subject_id uuid, unit text, period text, allowed numeric,
               charged numeric, settled numeric, starts_at timestamptz, resets_at timestamptz)
LANGUAGE plpgsql STABLE SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    {ACT_AS_SERVICE}
BEGIN
RETURN QUERY
WITH present AS MATERIALIZED (
    SELECT now()::timestamp AS moment, date_trunc('day', now()::timestamp) AS today
), terms AS MATERIALIZED (
    SELECT plans.entitlements,
           coalesce(subscriptions.started_at, timestamptz '2000-01-01Z')::timestamp AS anchor
    FROM plans LEFT JOIN subscriptions ON subscriptions.user_id = of_user
    WHERE plans.id = coalesce(subscriptions.plan_id, (SELECT id FROM plans WHERE is_default))
), periods AS MATERIALIZED (
    SELECT anchor, months - (anchor + make_interval(months => months) > moment)::integer AS months
    FROM present, terms, LATERAL (
        SELECT ((extract(year FROM moment) - extract(year FROM anchor)) * 12
                + extract(month FROM moment) - extract(month FROM anchor))::integer AS months
    ) AS counted
), limits AS MATERIALIZED (
    SELECT 'user' AS scope, of_user AS subject_id,
           CASE WHEN own.scope IS NULL THEN (entitlements->>'budgetUsd')::numeric
                ELSE own.budget_usd END AS month_usd,
           CASE WHEN own.scope IS NULL THEN (entitlements->>'dailyBudgetUsd')::numeric
                ELSE own.daily_budget_usd END AS day_usd,
           CASE WHEN own.scope IS NULL THEN (entitlements->>'budgetTokens')::numeric
                ELSE own.budget_tokens END AS month_tokens,
           CASE WHEN own.scope IS NULL THEN (entitlements->>'dailyBudgetTokens')::numeric
                ELSE own.daily_budget_tokens END AS day_tokens
    FROM terms LEFT JOIN budgets AS own ON own.scope = 'user' AND own.subject_id = of_user
    UNION ALL
    SELECT scope, subject_id, budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens
    FROM budgets WHERE scope = 'api_key' AND subject_id = of_key
    UNION ALL
    SELECT scope, subject_id, budget_usd, daily_budget_usd, budget_tokens, daily_budget_tokens
    FROM budgets WHERE scope = 'installation'
), windows AS MATERIALIZED (
    SELECT limits.*, month_start, month_end, today
    FROM limits, present, periods, LATERAL (
        SELECT CASE limits.scope WHEN 'installation' THEN date_trunc('month', moment)
               ELSE anchor + make_interval(months => months) END AS month_start,
               CASE limits.scope WHEN 'installation'
               THEN date_trunc('month', moment) + interval '1 month'
               ELSE anchor + make_interval(months => months + 1) END AS month_end
    ) AS month
    WHERE num_nonnulls(month_usd, day_usd, month_tokens, day_tokens) > 0
)
SELECT windows.scope, windows.subject_id, one.unit, one.period, one.allowed, one.charged,
       one.settled, one.starts_at::timestamptz, one.resets_at::timestamptz
FROM windows
CROSS JOIN LATERAL (
    SELECT coalesce(sum(charged_usd) FILTER (WHERE day = today), 0) AS day_usd,
           coalesce(sum(settled_usd) FILTER (WHERE day = today), 0) AS day_final_usd,
           coalesce(sum(charged_tokens) FILTER (WHERE day = today), 0) AS day_tokens,
           coalesce(sum(settled_tokens) FILTER (WHERE day = today), 0) AS day_final_tokens,
           coalesce(sum(charged_usd) FILTER (WHERE day >= month_start::date), 0) AS usd,
           coalesce(sum(settled_usd) FILTER (WHERE day >= month_start::date), 0) AS final_usd,
           coalesce(sum(charged_tokens) FILTER (WHERE day >= month_start::date), 0) AS tokens,
           coalesce(sum(settled_tokens) FILTER (WHERE day >= month_start::date), 0)
           AS final_tokens
    FROM usage_days AS days
    WHERE days.scope = windows.scope AND days.subject_id = windows.subject_id
      AND day >= least(today, month_start)::date
) AS spent
CROSS JOIN LATERAL (
    SELECT coalesce(sum(charged_usd), 0) AS usd,
           coalesce(sum(charged_usd) FILTER (WHERE status <> 'open'), 0) AS final_usd,
           coalesce(sum(charged_tokens), 0) AS tokens,
           coalesce(sum(charged_tokens) FILTER (WHERE status <> 'open'), 0) AS final_tokens
    FROM ledger
    WHERE windows.scope <> 'installation' AND ledger.user_id = of_user
      AND (windows.scope = 'user' OR ledger.api_key_id = of_key)
      AND created_at >= date_trunc('day', month_start)::timestamptz
      AND created_at < month_start::timestamptz
) AS earlier
CROSS JOIN LATERAL (
    VALUES
    ('usd', 'month', month_usd, spent.usd - earlier.usd, spent.final_usd - earlier.final_usd,
     month_start, month_end),
    ('tokens', 'month', month_tokens, spent.tokens - earlier.tokens,
     spent.final_tokens - earlier.final_tokens, month_start, month_end),
    ('usd', 'day', windows.day_usd, spent.day_usd, spent.day_final_usd,
     today, today + interval '1 day'),
    ('tokens', 'day', windows.day_tokens, spent.day_tokens, spent.day_final_tokens,
     today, today + interval '1 day')
) AS one (unit, period, allowed, charged, settled, starts_at, resets_at)
WHERE one.allowed IS NOT NULL;
{ACT_AS_CALLER}
END $$
"""  # noqa: S608 -- constants


def upgrade() -> None:
    """Create the function."""
    op.execute(_BUDGETS)


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP FUNCTION everturn_budgets(uuid, uuid)")
